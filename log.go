package main

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// newLogger makes a logger of a format, json or text, that writes to w.
func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// A logQueue writes lines to a log that may not be read: whoever logs never waits. Lines
// that find no room are dropped and counted. Its goroutine is no actor, as it has the
// last word, after all actors.
type logQueue struct {
	lines   chan []byte
	bytes   atomic.Int64 // of the lines that wait
	dropped atomic.Int64 // lines, in all
	end     chan struct{}
	done    chan struct{}
	close   func()
}

const (
	// maxLogLines and maxLogBytes bound what waits to be written.
	maxLogLines = 256
	maxLogBytes = 1 << 20
	// logPatience is how long the last lines may take.
	logPatience = 250 * time.Millisecond
)

// newLogQueue writes to w. complain is told, between two lines, how many were dropped
// since the last time.
func newLogQueue(w io.Writer, complain func(lines int64)) *logQueue {
	q := &logQueue{lines: make(chan []byte, maxLogLines), end: make(chan struct{}), done: make(chan struct{})}
	q.close = sync.OnceFunc(func() { close(q.end) })
	go q.write(w, complain)
	return q
}

// Write takes a line. It never fails, as nobody could be told.
func (q *logQueue) Write(line []byte) (int, error) {
	n := int64(len(line))
	if q.bytes.Add(n) <= maxLogBytes {
		select {
		case q.lines <- bytes.Clone(line):
			return len(line), nil
		default:
		}
	}
	q.bytes.Add(-n)
	q.dropped.Add(1)
	return len(line), nil
}

func (q *logQueue) write(w io.Writer, complain func(int64)) {
	defer close(q.done)
	told := int64(0)
	take := func(line []byte) {
		_, _ = w.Write(line)
		q.bytes.Add(-int64(len(line)))
		if now := q.dropped.Load(); now > told {
			complain(now - told)
			told = now
		}
	}
	for {
		select {
		case line := <-q.lines:
			take(line)
			continue
		default:
		}
		select {
		case line := <-q.lines:
			take(line)
		case <-q.end:
			if len(q.lines) == 0 {
				return
			}
		}
	}
}

// Close writes what waits, for as long as somebody reads it.
func (q *logQueue) Close() {
	q.close()
	select {
	case <-q.done:
	case <-time.After(logPatience):
	}
}

// A lineBudget bounds the lines that clients can cause. The zero value is full.
type lineBudget struct {
	second atomic.Int64 // that lines counts for
	lines  atomic.Int64
	held   atomic.Int64 // lines that were not written since the last one that was
}

// maxLines is how many such lines are written in a second.
const maxLines = 20

// take says whether a line may be written at that time, and how many before it were not.
func (b *lineBudget) take(now time.Duration) (held int64, ok bool) {
	if second := int64(now / time.Second); b.second.Swap(second) != second {
		b.lines.Store(0)
	}
	if b.lines.Add(1) > maxLines {
		b.held.Add(1)
		return 0, false
	}
	return b.held.Swap(0), true
}
