package upstream

import "fmt"

// A Reason is why there is no answer, or only a part of one.
type Reason int

const (
	NotThere     Reason = iota // no connection was made
	Closed                     // it was closed or reset before the first byte of an answer
	Cut                        // it was closed or reset within the answer
	Silent                     // no whole header came within Options.HeaderTimeout
	Malformed                  // what came is no answer, see the package's doc
	HeaderTooBig               // a header, or trailers, of more than MaxHeader bytes
	Abandoned                  // Request.Watch or an Interrupter has ended it
	BodyFailed                 // the request's body could not be read to its end
	Reasons                    // their number
)

func (r Reason) String() string {
	return [Reasons]string{
		"not_there", "closed", "cut", "silent", "malformed", "header_too_big", "abandoned", "body_failed",
	}[r]
}

// An Error is the error of all methods here.
type Error struct {
	Reason Reason
	// Untouched says that no byte of the request has left: it can be sent again, whatever its
	// method.
	Untouched bool
	// Reused says that the connection had served a request before.
	Reused bool
	Err    error // what the kernel says, or what is wrong with the answer
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason.String()
	}
	return fmt.Sprintf("%v: %v", e.Reason, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
