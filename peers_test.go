package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
		{"an older report", with(honest("x"), "/audit", sends(`{"schema":0}`)), "/audit has schema 0, and imagelab v0.1.0 reads 1: use the same version for both"},
		{"newer facts", with(honest("x"), "/snapshot", sends(`{"schema":3}`)), "/snapshot has schema 3, and imagelab v0.1.0 reads 2"},
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
			sides := askPeers(ctx, peers[:1], "snapshot", "", timeout)
			sides = append(sides, askPeers(ctx, peers[1:], "snapshot", "", patience)...)
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

// TestPeersByOddURLs has URLs that mean what a plain one means, or one escaped path.
func TestPeersByOddURLs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, suffix, prefix string }{
		{"no slash", "", ""},
		{"slashes", "//", ""},
		{"an empty query", "?", ""},
		{"a slash and an empty query", "/?", ""},
		{"an empty fragment", "#", ""},
		{"an escaped slash", "/a%2Fb", "/a%2Fb"},
		{"an escaped slash at the end", "/a%2f", "/a%2f"},
		{"an escaped slash before the last one", "/a%2Fb/", "/a%2Fb"},
		{"an escaped question mark", "/a%3Fb", "/a%3Fb"},
		{"an escaped percent sign", "/%25", "/%25"},
		{"a space", "/a%20b/-", "/a%20b/-"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			answers := honest("good")
			asked := make(chan string, 2)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked <- r.RequestURI
				answers[r.RequestURI[strings.LastIndexByte(r.RequestURI, '/'):]](w, r)
			}))
			t.Cleanup(srv.Close)
			code, _, stderr := invoke(t, nil, "--compare", srv.URL+tc.suffix)
			if code != exitOK {
				t.Fatalf("--compare …%s = %d, %s", tc.suffix, code, stderr)
			}
			for _, path := range []string{"/audit", "/snapshot"} {
				if got := <-asked; got != tc.prefix+path {
					t.Errorf("--compare …%s asks for %s, want %s", tc.suffix, got, tc.prefix+path)
				}
			}
		})
	}
}

// TestCompareByAPublicName says what to set, on which side.
func TestCompareByAPublicName(t *testing.T) {
	t.Parallel()
	refuses := fakeOps(t, map[string]http.HandlerFunc{"/audit": newGuard(Config{}, newMetrics(prometheus.NewRegistry(), newHealth(time.Now()), "", new(atomic.Int64))).protect(
		http.NotFoundHandler(), true).ServeHTTP})
	in := strings.Replace(refuses, "127.0.0.1", "127.0.0.1.nip.invalid", 1)
	target, err := parsePeer(in)
	if err != nil {
		t.Fatal(err)
	}
	target.base.Addrs = []string{strings.TrimPrefix(refuses, "http://")} // what a resolver would say
	if got := target.side(t.Context(), "snapshot", "", patience).Err; got == nil || !strings.Contains(got.Error(), "set IMAGELAB_OPS_HOSTS there") {
		t.Errorf("the peer's error is %v, want what to set", got)
	}
}

func TestPeersVariable(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, value string
		ok          bool
	}{
		{"one", "alpine=http://alpine:9000", true},
		{"without a name", "https://alpine:9000/-/", true},
		{"two, with spaces and a comma too many", "a=http://a:1, b=http://b:2,", true},
		{"not a URL", "alpine", false},
		{"two of one name", "a=http://a:1,a=http://b:2", false},
		{"more than a page shows", strings.Repeat("http://h:1,", 9), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, _, _, err := loadConfig([]string{"IMAGELAB_PEERS=" + tc.value})
			if tc.ok && err != nil || !tc.ok && (err == nil || !strings.Contains(err.Error(), "want up to 8 [NAME=]URL of other ops listeners")) {
				t.Errorf("IMAGELAB_PEERS=%q: %v, want ok %v", tc.value, err, tc.ok)
			}
		})
	}
}
