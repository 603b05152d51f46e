// Package early makes the usual health check cheap: `imagelab --healthcheck` of a
// healthy server over plain HTTP ends here, before the rest of the program is
// initialised, which costs more than the probe itself.
//
// Go initialises packages in the order of their import paths, each as soon as its
// imports are (language specification, "Program initialization"). So this one
// imports only what comes before everything dear, and that leaves out strings,
// fmt and net: a test keeps it so. Whatever it does not understand at once, it
// leaves to package probe, on the same connection.
package early

import (
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Version is the program's, for the User-Agent. Set by the linker:
// -X imagelab/internal/early.Version=….
var Version = "v0.1.0"

// patience bounds each wait here. Who needs longer can wait for the rest of the
// program, which then minds --timeout.
const patience = 100 * time.Millisecond

// maxAnswer is how many bytes of an answer are looked at here.
const maxAnswer = 4 << 10

func init() {
	if code, decided := decide(os.Args, syscall.Stdout); decided {
		os.Exit(code)
	}
}

// decide probes if args, a command line, ask for it. When it knows the verdict it
// prints that on stdout, a descriptor, and returns the exit code.
func decide(args []string, stdout int) (code int, decided bool) {
	if len(args) < 2 || args[1] != "--healthcheck" {
		return 0, false
	}
	if p := find(args[2:]); p != nil && p.send() {
		if status := p.receive(); status != "" {
			took := time.Since(p.Began).Round(100 * time.Microsecond)
			Print(stdout, "healthy: "+status+" in "+took.String()+" "+p.url+"\n")
			_ = syscall.Close(p.fd)
			return 0, true
		}
		begun.Store(p)
	}
	if err := reserve(stdout); err != nil {
		Print(stdout, "unhealthy: "+err.Error()+", and the probe needs 3 more\n")
		return 1, true
	}
	return 0, false
}

// reserve checks that Go can poll a connection, which takes 3 descriptors: without
// the first two its runtime ends the process with a trace and exit code 2. It copies
// fd, which the runtime has opened if nobody else has.
func reserve(fd int) (err error) {
	var copies [3]int
	for i := range copies {
		copies[i], err = syscall.Dup(fd)
		if err != nil {
			break
		}
		defer syscall.Close(copies[i])
	}
	if err == syscall.EMFILE || err == syscall.ENFILE {
		return err
	}
	return nil
}

// Print writes text of less than 4 KiB to fd, unless it is a pipe that stays full for
// a moment or that nobody reads: the exit code says the same as the line, and it must
// come in time. Through package os a write to standard output that nobody reads would
// end the process (os/signal, SIGPIPE).
func Print(fd int, text string) {
	var set syscall.FdSet
	set.Bits[fd/strconv.IntSize] = 1 << (fd % strconv.IntSize)
	wait := syscall.NsecToTimeval(int64(patience))
	if n, err := syscall.Select(fd+1, nil, &set, nil, &wait); n == 1 && err == nil {
		_, _ = syscall.Write(fd, []byte(text))
	}
}

// ParsePort reads the number of a port, digits alone, as server and probe both do.
func ParsePort(text string) (port uint16, valid bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil
}

// Probe is a probe of http://IPV4[:PORT][/PATH]. The rest of the program sees it
// when its request has been sent, and its answer needs more thought than there is
// here: Read returns the answer from its beginning.
type Probe struct {
	Began time.Time

	url, host, path string
	addr            syscall.SockaddrInet4
	fd              int
	head            []byte   // what has been read of the answer
	err             error    // what reading more of it said
	rest            *os.File // where more of it comes from
}

var begun atomic.Pointer[Probe]

// Take returns the probe that the process has begun and not ended, or nil. The
// caller closes it.
func Take() *Probe {
	if p := begun.Swap(nil); p != nil {
		return p.take()
	}
	return nil
}

// take makes p ready for Read and Close.
func (p *Probe) take() *Probe {
	_ = syscall.SetNonblock(p.fd, true) // so that Close ends a Read
	p.rest = os.NewFile(uintptr(p.fd), p.host)
	return p
}

func (p *Probe) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.rest.Read(b)
	if file, ok := err.(*os.PathError); ok {
		err = file.Err // it is no file, and has no path
	}
	return n, err
}

// Close ends the connection.
func (p *Probe) Close() error { return p.rest.Close() }

// find returns the probe of the one URL in args, or without any of the server's
// own /health. It returns nil for what it does not know, or finds wrong: the
// program's own probe follows the same rules, knows all and can explain.
func find(args []string) *Probe {
	if len(args) == 1 {
		return parse(args[0])
	}
	if len(args) != 0 {
		return nil
	}
	for _, name := range []string{"PORT_FILE", "IMAGELAB_BIND_ADDRESS_FILE", "IMAGELAB_UPSTREAM", "IMAGELAB_UPSTREAM_FILE"} {
		if os.Getenv(name) != "" {
			return nil
		}
	}
	host, port := os.Getenv("IMAGELAB_BIND_ADDRESS"), os.Getenv("PORT")
	if host == "" || host == "0.0.0.0" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = "8000"
	}
	p := parse("http://" + host + ":" + port + "/health")
	if p != nil && p.path != "/health" { // a variable has a slash in it
		return nil
	}
	return p
}

// parse reads a URL that is plain enough to need no decoding, or returns nil.
func parse(url string) *Probe {
	const scheme = "http://"
	if len(url) < len(scheme) || url[:len(scheme)] != scheme || len(url) > 100 {
		return nil
	}
	host, path, _ := cut(url[len(scheme):], '/')
	for i := range len(path) {
		if c := path[i]; !isWord(c) && c != '/' && c != '.' && c != '_' {
			return nil
		}
	}
	p := &Probe{Began: time.Now(), url: url, host: host, path: "/" + path}
	ip, port, found := cut(host, ':')
	if !found {
		port = "80"
	}
	n, valid := ParsePort(port)
	if !valid || n == 0 {
		return nil
	}
	p.addr.Port = int(n)
	for i := range p.addr.Addr {
		var part string
		part, ip, found = cut(ip, '.')
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || len(part) > 1 && part[0] == '0' || found != (i < 3) {
			return nil
		}
		p.addr.Addr[i] = byte(n)
	}
	return p
}

// send connects and sends the request, or leaves nothing behind.
func (p *Probe) send() bool {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	p.fd = fd
	limit := syscall.NsecToTimeval(int64(patience))
	_ = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit) // connect's as well
	_ = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)
	if err = syscall.Connect(fd, &p.addr); err == nil {
		_, err = syscall.Write(fd, []byte("GET "+p.path+" HTTP/1.1\r\nHost: "+p.host+
			"\r\nUser-Agent: imagelab-healthcheck/"+Version+"\r\nAccept: */*\r\nConnection: close\r\n\r\n"))
	}
	if err != nil {
		_ = syscall.Close(fd)
	}
	return err == nil
}

// receive reads until the answer is healthy, and returns its status, or there is
// nothing more for now.
func (p *Probe) receive() string {
	buf := make([]byte, maxAnswer)
	for len(p.head) < len(buf) && time.Since(p.Began) < patience {
		n, err := syscall.Read(p.fd, buf[len(p.head):])
		if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
			p.err = err
		}
		if n <= 0 {
			break
		}
		p.head = buf[:len(p.head)+n]
		if status := judge(string(p.head)); status != "" {
			return status
		}
	}
	return ""
}

// judge returns the status of a whole answer that is healthy beyond doubt: 2xx or
// 3xx, with a plain header and a body of the length that it declares.
func judge(answer string) string {
	line, rest := cutLine(answer)
	if len(line) < len("HTTP/1.1 200 ") || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' ||
		line[8] != ' ' || line[12] != ' ' {
		return ""
	}
	status := line[9:12]
	if n, err := strconv.Atoi(status); err != nil || n < 200 || n > 399 {
		return ""
	}
	length := -1
	for {
		if line, rest = cutLine(rest); line == "" {
			return ""
		}
		if line == "\r" {
			break
		}
		name, value, found := cut(line[:len(line)-1], ':')
		if name = lower(name); !found || name == "" || name == "transfer-encoding" {
			return ""
		}
		if name == "content-length" {
			if length >= 0 || value == "" || value[0] != ' ' {
				return ""
			}
			n, err := strconv.ParseUint(value[1:], 10, 16)
			if err != nil {
				return ""
			}
			length = int(n)
		}
	}
	if length < 0 || len(rest) < length {
		return ""
	}
	return status
}

// cutLine cuts answer after its first line, which keeps its carriage return. The
// line is empty if it is not whole, or not printable ASCII.
func cutLine(answer string) (line, rest string) {
	for i := range len(answer) {
		c := answer[i]
		if c == '\r' && i+1 < len(answer) && answer[i+1] == '\n' {
			return answer[:i+1], answer[i+2:]
		}
		if c < ' ' || c > '~' {
			return "", ""
		}
	}
	return "", ""
}

// lower returns a header's name in lower case, or nothing if it is out of the
// ordinary.
func lower(name string) string {
	b := []byte(name)
	for i, c := range b {
		if !isWord(c) {
			return ""
		}
		b[i] = c | 0x20 // the bit that digits and - have anyway
	}
	return string(b)
}

func isWord(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-'
}

// cut is strings.Cut.
func cut(s string, sep byte) (before, after string, found bool) {
	for i := range len(s) {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}
