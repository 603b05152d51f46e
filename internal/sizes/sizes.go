// Package sizes writes numbers of bytes, for every report the same way: images and what
// is in them in MB, powers of ten, as docker image ls does; memory in KiB, MiB and GiB,
// powers of two, as limits of memory are set. So nothing is told in two units.
package sizes

import "strconv"

// Image writes the size of an image or of files in it, such as "11.81 MB".
func Image(bytes float64) string { return strconv.FormatFloat(bytes/1e6, 'f', 2, 64) + " MB" }

// Memory writes an amount of memory or its limit, such as "64 MiB" or "2.4 MiB", in the
// largest unit that leaves at least 1.
func Memory(bytes float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for bytes >= 1024 && unit < len(units)-1 {
		bytes /= 1024
		unit++
	}
	digits := 1
	if bytes == float64(int64(bytes)) {
		digits = 0
	}
	return strconv.FormatFloat(bytes, 'f', digits, 64) + " " + units[unit]
}
