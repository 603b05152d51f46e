package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompareCommandLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		args   []string
		stderr string
	}{
		{"nothing to compare", nil, "--compare without anything to compare: want [NAME=]URL"},
		{"not a URL", []string{"localhost:9000"}, `"localhost:9000": want [NAME=]URL of an ops listener, such as alpine=http://alpine:9000`},
		{"no host", []string{"http:///audit"}, "want [NAME=]URL"},
		{"another scheme", []string{"a=unix:///run/x"}, "want [NAME=]URL"},
		{"a query", []string{"http://h/?a=b"}, "want [NAME=]URL"},
		{"a password, which is not shown", []string{"http://me:hunter2@h/"}, `"http://xxxxx@h/": want a URL without user and password`},
		{"a name with a space", []string{"a b=http://h/"}, `name "a b": want at most 32 letters`},
		{"a name twice", []string{"a=http://h/", "a=http://i/"}, `"a" twice: want a name for each`},
		{"no such format", []string{"http://h/", "--format", "xml"}, `--format "xml": want text, json or markdown`},
		{"a flag of another mode", []string{"http://h/", "--timeout", "1s"}, "--timeout belongs to --healthcheck"},
		{"with the audit", []string{"--audit", "http://h/"}, "exclude each other"},
		{"a dash alone", []string{"-"}, "want [NAME=]URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(t, nil, append([]string{"--compare"}, tc.args...)...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, tc.stderr) || strings.Contains(stderr, "hunter2") {
				t.Errorf("--compare %q = %d, %q, %q, want 2 and %q", tc.args, code, stdout, stderr, tc.stderr)
			}
		})
	}
}

func TestCompareFormats(t *testing.T) {
	t.Parallel()
	small, large := fakeOps(t, honest("small")), fakeOps(t, honest("large-one"))
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"text, named by variant", []string{small, large}, "\nIMAGE               small                                   large-one\n"},
		{"text, named", []string{"a=" + small, "b=" + large}, "\nIMAGE               a                                       b\n"},
		{"the same variant twice", []string{"a=" + small, small}, "\nIMAGE               a                                       small\n"},
		{"flags last", []string{small, large, "--format", "markdown"}, "| image: size | **5.00 MB** | 9.00 MB |\n"},
		{"flags between", []string{small, "--format=json", large}, `"text": "5.00 MB"`},
		{"summary", []string{small, large}, "small is the smallest: 5.00 MB, below large-one by 4.00 MB (44 %)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(t, nil, append([]string{"--compare"}, tc.args...)...)
			if code != exitOK || stderr != "" || !strings.Contains(stdout, tc.want) {
				t.Errorf("--compare %q = %d, %q, want 0 and %q in\n%s", tc.args, code, stderr, tc.want, stdout)
			}
		})
	}
}

func TestCompareExitsWithOneWhenOneIsDown(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := invoke(t, nil, "--compare", "down=http://127.0.0.1:1", fakeOps(t, honest("good")))
	if code != exitFailed || stderr != "imagelab: down http://127.0.0.1:1/: connection refused\n" || !strings.Contains(stdout, "\nIMAGE               good\n") {
		t.Errorf("--compare = %d, %q,\n%s\nwant 1, a line for it and the rest", code, stderr, stdout)
	}
}

func TestCompareSendsTheToken(t *testing.T) {
	t.Parallel()
	answers := honest("good")
	for path, h := range answers {
		answers[path] = requireToken("correct horse", h).ServeHTTP
	}
	url := fakeOps(t, answers)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, environ string
		code          int
		stderr        string
	}{
		{"variable", "IMAGELAB_OPS_TOKEN=correct horse", exitOK, ""},
		{"file", "IMAGELAB_OPS_TOKEN_FILE=" + file, exitOK, ""},
		{"wrong", "IMAGELAB_OPS_TOKEN=battery", exitFailed, "it does not take the token of IMAGELAB_OPS_TOKEN"},
		{"that cannot be sent", "IMAGELAB_OPS_TOKEN=a\r\nHost: b", exitFailed, "a character that no header can carry"},
		{"in no file", "IMAGELAB_OPS_TOKEN_FILE=/no/such", exitUsage, "IMAGELAB_OPS_TOKEN_FILE:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			// A proxy would get to see the token.
			code, stdout, stderr := invoke(t, []string{tc.environ, "HTTP_PROXY=http://127.0.0.1:1"}, "--compare", url)
			if code != tc.code || !strings.Contains(stderr, tc.stderr) || strings.Contains(stdout+stderr, "correct horse") || strings.Contains(stdout+stderr, "battery") {
				t.Errorf("--compare with %s = %d, %q, want %d, %q", tc.environ, code, stderr, tc.code, tc.stderr)
			}
		})
	}
}
