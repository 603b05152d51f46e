package sizes

import "testing"

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		bytes         float64
		image, memory string
	}{
		{0, "0.00 MB", "0 B"},
		{1023, "0.00 MB", "1023 B"},
		{1 << 20, "1.05 MB", "1 MiB"},
		{11812345, "11.81 MB", "11.3 MiB"},
		{64 << 20, "67.11 MB", "64 MiB"},
		{150e6, "150.00 MB", "143.1 MiB"},
		{1.5 * (1 << 30), "1610.61 MB", "1.5 GiB"},
		{1 << 52, "4503599627.37 MB", "4096 TiB"},
	} {
		if image, memory := Image(tc.bytes), Memory(tc.bytes); image != tc.image || memory != tc.memory {
			t.Errorf("%.0f bytes = %q and %q, want %q and %q", tc.bytes, image, memory, tc.image, tc.memory)
		}
	}
}
