package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imagelab/internal/audit"
	"imagelab/internal/compare"
)

// fakeOps is an ops listener that answers with what is given by path.
func fakeOps(t *testing.T, answers map[string]http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	for path, h := range answers {
		mux.HandleFunc(path, h)
	}
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}

func sends(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if text, isText := v.(string); isText {
			fmt.Fprint(w, text)
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	}
}

// honest are the answers of a good ops listener.
func honest(variant string) map[string]http.HandlerFunc {
	size := int64(len(variant) * 1e6)
	return map[string]http.HandlerFunc{
		"/audit":    sends(audit.Report{Schema: audit.Schema, Variant: variant, Facts: audit.Facts{Image: audit.ImageFacts{Bytes: &size}}}),
		"/snapshot": sends(compare.Live{Schema: compare.LiveSchema, Variant: variant, State: "ready"}),
	}
}

// with replaces one answer.
func with(answers map[string]http.HandlerFunc, path string, h http.HandlerFunc) map[string]http.HandlerFunc {
	answers[path] = h
	return answers
}

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
		{"a password, which is not shown", []string{"http://me:hunter2@h/"}, `"http://me:xxxxx@h/": want a URL without user and password`},
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

// TestCompareAgainstLiars shows a line for whoever cannot be compared, and the
// rest all the same.
func TestCompareAgainstLiars(t *testing.T) {
	t.Parallel()
	elsewhere := fakeOps(t, honest("elsewhere"))
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat(" ", 4096)); err != nil {
				return
			}
		}
	}
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, tc := range []struct {
		name    string
		answers map[string]http.HandlerFunc
		want    string
	}{
		{"endless", with(honest("x"), "/audit", endless), "/audit sends more than 1048576 bytes"},
		{"endless facts", with(honest("x"), "/snapshot", endless), "/snapshot sends more than 1048576 bytes"},
		{"not JSON", with(honest("x"), "/audit", sends("<html>hello</html>")), "/audit is not what an imagelab serves"},
		{"other JSON", with(honest("x"), "/audit", sends(`{"hello":"world"}`)), "/audit is not what an imagelab serves"},
		{"JSON of other types", with(honest("x"), "/audit", sends(`{"schema":1,"checks":7}`)), "/audit is not what an imagelab serves"},
		{"half a report", with(honest("x"), "/audit", sends(`{"schema":1,`)), "/audit is not what an imagelab serves"},
		{"nothing", with(honest("x"), "/audit", sends("")), "/audit is not what an imagelab serves"},
		{"an older report", with(honest("x"), "/audit", sends(`{"schema":0}`)), "/audit has schema 0, and imagelab dev reads 1: use the same version for both"},
		{"newer facts", with(honest("x"), "/snapshot", sends(`{"schema":2}`)), "/snapshot has schema 2, and imagelab dev reads 1"},
		{"redirect", with(honest("x"), "/audit", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere+"/audit", http.StatusFound)
		}), "/audit redirects to \"" + elsewhere + "/audit\", which is not followed"},
		{"error", with(honest("x"), "/audit", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), "/audit answers 500, is this an imagelab's ops listener?"},
		{"silence", with(honest("x"), "/audit", silent), "no answer within 300ms"},
		{"silent facts", with(honest("x"), "/snapshot", silent), "no answer within 300ms"},
		{"no container", with(honest("x"), "/audit", func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, http.StatusNotFound, notInContainer, "a container")
		}), "it runs in no container, so it has no report"},
		{"a token", with(honest("x"), "/audit", requireToken("t", sends("")).ServeHTTP), "it asks for a token, set IMAGELAB_OPS_TOKEN"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			timeout := peerTimeout
			if strings.HasPrefix(tc.want, "no answer") {
				timeout = 300 * time.Millisecond
			}
			peers, err := parsePeers([]string{"liar=" + fakeOps(t, tc.answers), "good=" + fakeOps(t, honest("good"))})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			sides := askPeers(ctx, peers[:1], "", timeout)
			sides = append(sides, askPeers(ctx, peers[1:], "", patience)...)
			if err := sides[0].Err; err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the liar's error is %v, want %q", err, tc.want)
			}
			if sides[1].Err != nil {
				t.Errorf("the good one's error is %v", sides[1].Err)
			}
			var b bytes.Buffer
			if err := compare.WriteText(&b, compare.Compare(sides, time.Now())); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"liar could not be compared:", "Failed checks: good none"} {
				if !strings.Contains(b.String(), want) {
					t.Errorf("no %q in\n%s", want, b.String())
				}
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

func TestPeersBelowAPath(t *testing.T) {
	t.Parallel()
	inner := honest("good")
	url := fakeOps(t, map[string]http.HandlerFunc{"/-/audit": inner["/audit"], "/-/snapshot": inner["/snapshot"]})
	for _, path := range []string{"/-", "/-/"} {
		if code, _, stderr := invoke(t, nil, "--compare", url+path); code != exitOK {
			t.Errorf("--compare …%s = %d, %s", path, code, stderr)
		}
	}
}
