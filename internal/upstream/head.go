package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

// ReadHead waits for the next status line and header, and adds the fields to into, under
// their canonical names and without those that are about the connection. Content-Length is
// among them where it says how long the body is, or would be.
//
// A status below 200, but not 101, is an interim one: ReadHead is to be called again, with
// an empty into. 100 is returned only to a Request with Expects100, once, also if nothing
// has come for a second: then SendBody is to be called (RFC 9110, 10.1.1).
func (x *Exchange) ReadHead(into http.Header) (status int, err error) {
	for {
		block, err := x.readBlock()
		if err == errExpected {
			return http.StatusContinue, nil
		}
		if err != nil {
			return 0, x.broken(err)
		}
		status, http11, err := parseStatusLine(block)
		if err == nil {
			err = x.take(into, status, http11, block)
		}
		if err != nil {
			clear(into)
			return 0, x.fail(Malformed, err)
		}
		if status != http.StatusContinue || x.expecting {
			return status, nil
		}
		clear(into)
	}
}

// readBlock reads up to the next empty line, that included.
func (x *Exchange) readBlock() ([]byte, error) {
	c := x.c
	for seen := 0; ; {
		if c.r < c.w {
			x.partial = true
			unread := c.buf[c.r:c.w]
			if !looksLikeHTTP(unread) {
				return nil, x.fail(Malformed, fmt.Errorf("begins with %.20q", unread))
			}
			if i := bytes.Index(unread[max(0, seen-3):], []byte("\r\n\r\n")); i >= 0 {
				end := max(0, seen-3) + i + 4
				c.r += end
				return unread[:end], nil
			}
			if hasBareLF(unread[max(0, seen-1):]) {
				return nil, x.fail(Malformed, errLine)
			}
			if seen = len(unread); seen >= MaxHeader {
				return nil, x.fail(HeaderTooBig, fmt.Errorf("more than %d bytes", MaxHeader))
			}
		}
		if err := c.fill(x.onTick); err != nil {
			return nil, err
		}
	}
}

// hasBareLF says whether a line ends without CR. Who sends such lines may end the header with
// one, which is not to be waited for.
func hasBareLF(b []byte) bool {
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return false
		}
		if from+i > 0 && b[from+i-1] != '\r' {
			return true
		}
		from += i + 1
	}
}

// looksLikeHTTP says whether b may be the beginning of an answer. What is not is refused at
// once: there may be no empty line in it.
func looksLikeHTTP(b []byte) bool {
	const begin = "HTTP/1."
	n := min(len(b), len(begin))
	return string(b[:n]) == begin[:n]
}

var (
	errStatusLine = errors.New("not a status line of HTTP/1.1 or 1.0")
	errLine       = errors.New("a line with a bare CR, LF or NUL")
	errFold       = errors.New("a folded line")
	errName       = errors.New("a field name that is no token")
	errLength     = errors.New("a Content-Length that is none, or more than one")
	errCoding     = errors.New("a Transfer-Encoding other than chunked, beside Content-Length, or in HTTP/1.0")
	errSwitch     = errors.New("101 for a protocol that was not asked for, or before the end of the request")
	errChunk      = errors.New("a chunk that is none")
)

// parseStatusLine reads the first line of a header (RFC 9112, 4).
func parseStatusLine(block []byte) (status int, http11 bool, err error) {
	const prefix = len("HTTP/1.x ")
	line, _, _ := bytes.Cut(block, []byte("\r\n"))
	if len(line) < prefix+3 || line[prefix-1] != ' ' || line[prefix-2] != '0' && line[prefix-2] != '1' {
		return 0, false, errStatusLine
	}
	for _, digit := range line[prefix : prefix+3] {
		if digit < '0' || digit > '9' {
			return 0, false, errStatusLine
		}
		status = 10*status + int(digit-'0')
	}
	if status < 100 || len(line) > prefix+3 && line[prefix+3] != ' ' {
		return 0, false, errStatusLine
	}
	if hasControl(line) {
		return 0, false, errLine
	}
	return status, line[prefix-2] == '1', nil
}

// hasControl says whether there is a CR, LF or NUL in a line or value, which would end it
// for somebody (RFC 9110, 5.5).
func hasControl(line []byte) bool {
	for _, char := range line {
		if char <= '\r' && (char == '\r' || char == '\n' || char == 0) {
			return true
		}
	}
	return false
}

// isOneOf says whether a protocol is one of those that were asked for (RFC 9110, 7.8).
func isOneOf(protocol, asked string) bool {
	for one := range strings.SplitSeq(asked, ",") {
		if one = strings.Trim(one, " \t"); one != "" && strings.EqualFold(one, protocol) {
			return true
		}
	}
	return false
}

// take reads the fields of a header, and what they say of the body and the connection.
func (x *Exchange) take(into http.Header, status int, http11 bool, block []byte) error {
	x.keep = http11 && !x.req.Once
	f := fields{into: into}
	if err := f.read(block[bytes.IndexByte(block, '\n')+1:]); err != nil {
		return err
	}
	isUpgrade := status == http.StatusSwitchingProtocols
	if isUpgrade && (!isOneOf(f.upgrade, x.req.Upgrade) || !x.allRead.Load()) {
		return errSwitch
	}
	for _, value := range f.connection {
		for option := range strings.SplitSeq(value, ",") {
			option = strings.Trim(option, " \t")
			if strings.EqualFold(option, "close") {
				x.keep = false
			}
			switch name := textproto.CanonicalMIMEHeaderKey(option); name {
			case "", "Content-Length":
			default:
				delete(into, name)
			}
		}
	}
	if isUpgrade {
		into["Connection"] = []string{"Upgrade"}
		into["Upgrade"] = []string{f.upgrade}
	}
	var length int64
	if f.lengths > 0 {
		var ok bool
		if length, ok = parseLength(f.length); f.lengths > 1 || !ok {
			return errLength
		}
	}
	if f.codings > 0 && (f.codings > 1 || !strings.EqualFold(f.coding, "chunked") || f.lengths > 0 || !http11) {
		return errCoding
	}
	switch {
	case status < 200 || status == http.StatusNoContent:
		delete(into, "Content-Length")
		x.framing = noBody
	case status == http.StatusNotModified || x.req.Method == http.MethodHead:
		x.framing = noBody
	case f.codings > 0:
		x.framing, x.left = chunked, 0
	case f.lengths > 0:
		x.framing, x.left = byLength, length
	default:
		x.framing, x.keep = untilClose, false
	}
	if x.framing != chunked {
		delete(into, "Trailer")
	}
	x.delivered = true // the header
	return nil
}

// parseLength reads a Content-Length (RFC 9110, 8.6): digits and nothing else.
func parseLength(text string) (int64, bool) {
	if text == "" || len(text) > 18 {
		return 0, false
	}
	var n int64
	for _, digit := range []byte(text) {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		n = 10*n + int64(digit-'0')
	}
	return n, true
}

// fields are those of a header, or of trailers.
type fields struct {
	into       http.Header
	connection []string
	upgrade    string
	length     string
	lengths    int
	coding     string
	codings    int
}

// read reads lines up to the empty one at the end of block. All texts share one string, and
// all values one array.
func (f *fields) read(block []byte) error {
	text := string(block)
	values := make([]string, 0, strings.Count(text, "\n"))
	for {
		end := strings.IndexByte(text, '\n')
		if end < 1 || text[end-1] != '\r' {
			return errLine
		}
		line := text[:end-1]
		text = text[end+1:]
		if line == "" {
			return nil
		}
		if line[0] == ' ' || line[0] == '\t' {
			return errFold
		}
		name, value, found := strings.Cut(line, ":")
		if name = strings.TrimRight(name, " \t"); !found || !isToken(name) {
			return errName
		}
		value = strings.Trim(value, " \t")
		if strings.IndexByte(value, '\r') >= 0 || strings.IndexByte(value, 0) >= 0 {
			return errLine
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch name {
		case "Connection":
			f.connection = append(f.connection, value)
			continue
		case "Upgrade":
			f.upgrade = value
			continue
		case "Transfer-Encoding":
			f.coding = value
			f.codings++
			continue
		case "Keep-Alive", "Proxy-Connection", "Te":
			continue
		case "Content-Length":
			f.length = value
			f.lengths++
		}
		values = append(values, value)
		if before, again := f.into[name]; again {
			f.into[name] = append(before, value)
		} else {
			f.into[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
}

// isToken says whether text is a token (RFC 9110, 5.6.2).
func isToken(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 || !tokenChars[text[i]] {
			return false
		}
	}
	return text != ""
}

var tokenChars = func() (is [0x80]bool) {
	for char := byte('0'); char <= 'z'; char++ {
		is[char] = char <= '9' || char >= 'A' && char <= 'Z' || char >= 'a'
	}
	for _, char := range []byte("!#$%&'*+-.^_`|~") {
		is[char] = true
	}
	return is
}()

// maxChunkLine bounds the line of a chunk's size, with its extensions.
const maxChunkLine = 4 << 10

// nextChunk reads up to the next chunk's data, or with the last chunk and the trailers to the
// end of the body (RFC 9112, 7.1).
func (x *Exchange) nextChunk() error {
	if x.inChunk {
		line, err := x.readLine(len("\r\n"))
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return x.fail(Malformed, errChunk)
		}
		x.inChunk = false
	}
	line, err := x.readLine(maxChunkLine)
	if err != nil {
		return err
	}
	size, ok := parseChunkSize(line)
	if !ok {
		return x.fail(Malformed, errChunk)
	}
	if size > 0 {
		x.left, x.inChunk = size, true
		return nil
	}
	return x.readTrailer()
}

// parseChunkSize reads the line of a chunk: its size in hexadecimal, and extensions, which
// mean nothing here.
func parseChunkSize(line []byte) (size int64, ok bool) {
	digits := line
	if i := bytes.IndexAny(line, "; \t"); i >= 0 {
		digits = line[:i]
		if rest := bytes.TrimLeft(line[i:], " \t"); len(rest) > 0 && rest[0] != ';' {
			return 0, false
		}
	}
	if len(digits) == 0 || len(digits) > 15 {
		return 0, false
	}
	for _, char := range digits {
		switch {
		case char >= '0' && char <= '9':
			char -= '0'
		case char >= 'a' && char <= 'f':
			char -= 'a' - 10
		case char >= 'A' && char <= 'F':
			char -= 'A' - 10
		default:
			return 0, false
		}
		size = size<<4 | int64(char)
	}
	return size, true
}

// readLine reads a line of at most limit bytes, and returns it without its end.
func (x *Exchange) readLine(limit int) ([]byte, error) {
	c := x.c
	for {
		unread := c.buf[c.r:c.w]
		if i := bytes.IndexByte(unread, '\n'); i >= 0 {
			c.r += i + 1
			if i < 1 || unread[i-1] != '\r' || hasControl(unread[:i-1]) {
				return nil, x.fail(Malformed, errLine)
			}
			return unread[:i-1], nil
		}
		if len(unread) >= limit {
			return nil, x.fail(Malformed, errChunk)
		}
		if err := x.fillBody(); err != nil {
			return nil, x.broken(err)
		}
	}
}

// readTrailer reads what is behind the last chunk.
func (x *Exchange) readTrailer() error {
	c := x.c
	for seen := 0; ; {
		unread := c.buf[c.r:c.w]
		end := 0
		if bytes.HasPrefix(unread, []byte("\r\n")) {
			end = 2
		} else if i := bytes.Index(unread[max(0, seen-3):], []byte("\r\n\r\n")); i >= 0 {
			end = max(0, seen-3) + i + 4
		}
		if end > 2 {
			f := fields{into: http.Header{}}
			if err := f.read(unread[:end]); err != nil {
				return x.fail(Malformed, err)
			}
			delete(f.into, "Content-Length") // no framing behind the fact (RFC 9110, 6.5.1)
			delete(f.into, "Trailer")
			x.trailer = f.into
		}
		if end > 0 {
			c.r += end
			x.done = true
			return nil
		}
		if seen = len(unread); seen >= MaxHeader {
			return x.fail(HeaderTooBig, fmt.Errorf("trailers of more than %d bytes", MaxHeader))
		}
		if err := x.fillBody(); err != nil {
			return x.broken(err)
		}
	}
}
