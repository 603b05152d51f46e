//go:build !amd64 && !arm64

package sandbox

// There is no filter for other architectures: filter says so.
const (
	architecture = 0
	otherCalls   = 0
)

var refusedHere, refusedToServersHere []uint32
