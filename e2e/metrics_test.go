package e2e

import (
	"bytes"
	"net/http"
	"strconv"
	"testing"
)

// number is one series of the container; the test ends when there is none.
func (c *container) number(t *testing.T, series string) float64 {
	t.Helper()
	value, err := strconv.ParseFloat(c.metric(t, series), 64)
	if err != nil {
		t.Fatalf("%s: %v", series, err)
	}
	return value
}

// TestMemoryIsTheContainers: what the tmpfs holds counts against the limit, and is no
// part of the process.
func TestMemoryIsTheContainers(t *testing.T) {
	t.Parallel()
	const mebibyte = 1 << 20
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			c := start(t, variant, append([]string{"--memory", "64m", "--cpus", "0.5"}, hardened...)...)
			const used, workingSet = "imagelab_cgroup_memory_bytes", "imagelab_cgroup_memory_working_set_bytes"
			if got := c.number(t, "imagelab_cgroup_memory_limit_bytes"); got != 64*mebibyte {
				t.Errorf("limit = %v, want 64 MiB", got)
			}
			if got := c.number(t, "imagelab_cgroup_cpu_limit_cores"); got != 0.5 {
				t.Errorf("quota = %v, want 0.5", got)
			}
			before := c.number(t, workingSet)
			for i := range 7 {
				blob := append(bytes.Repeat([]byte("x"), mebibyte-1), byte(i))
				resp, err := client().Post(c.app+"/store", "", bytes.NewReader(blob))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusCreated {
					t.Fatalf("POST /store = %d, want 201", resp.StatusCode)
				}
			}
			// The kernel counts in batches, by processor.
			eventually(t, "working set with the blobs in it", func() bool { return c.number(t, workingSet) > before+6*mebibyte })
			kernel, err := strconv.ParseFloat(c.cgroup(t, "memory", "memory.usage_in_bytes", "memory.current"), 64)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.number(t, used); got < kernel-4*mebibyte || got > kernel+4*mebibyte {
				t.Errorf("in use = %v, want about what the kernel says outside, %v", got, kernel)
			}
			if got := c.number(t, used); got < c.number(t, workingSet)-mebibyte {
				t.Errorf("in use = %v, want no less than the working set", got)
			}
		})
	}
}

func TestThrottlingIsCounted(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", append([]string{"--cpus", "0.2"}, hardened...)...)
	stop := c.load(t, "/")
	defer stop()
	eventually(t, "throttled periods and seconds", func() bool {
		return c.number(t, "imagelab_cgroup_cpu_throttled_periods_total") > 0 &&
			c.number(t, "imagelab_cgroup_cpu_throttled_seconds_total") > 0 &&
			c.number(t, "imagelab_cgroup_cpu_periods_total") >= c.number(t, "imagelab_cgroup_cpu_throttled_periods_total")
	})
}
