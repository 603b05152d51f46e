package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"imagelab/internal/audit"
	"imagelab/internal/compare"
	"imagelab/internal/probe"
)

// A peer is the ops listener of another imagelab, given as [NAME=]URL.
type peer struct {
	name  string // what it is called; its host when that was not given
	named bool   // it was given
	url   string
	base  probe.Target // path ends in /
}

const (
	// acceptedPeer is what a peer has to look like.
	acceptedPeer = "want [NAME=]URL of an ops listener, such as alpine=http://alpine:9000"
	// peerTimeout is how long a peer has for all that it is asked.
	peerTimeout = 2 * time.Second
	// maxDocument bounds what a peer may answer. A report has some 50 kB.
	maxDocument = 1 << 20
	// maxPeerName keeps a name within a column.
	maxPeerName = 32
	// maxPeers is what fits on one page.
	maxPeers = 8
)

// parsePeer reads [NAME=]URL. The path of the URL is where the ops paths begin:
// / on an ops listener, /-/ where they are on the app listener.
func parsePeer(raw string) (peer, error) {
	// Where there is an @, what is before it may be a password, even if that has
	// characters by which the URL reads as another one.
	if strings.Contains(raw, "@") {
		return peer{}, fmt.Errorf("%q: want a URL without user and password; IMAGELAB_OPS_TOKEN is what is sent", withoutSecrets(raw))
	}
	name, address, named := strings.Cut(raw, "=")
	if !named || strings.ContainsAny(name, ":/") {
		name, address, named = "", raw, false
	}
	if named && !isPeerName(name) {
		return peer{}, fmt.Errorf("name %q: want at most %d letters, digits, dots, dashes and underscores", name, maxPeerName)
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return peer{}, fmt.Errorf("%q: %s", withoutSecrets(address), acceptedPeer)
	}
	u.ForceQuery = false // "http://h?" has a query, which is empty
	// Not u.Path: there %2F is a slash like any other.
	u.RawPath = strings.TrimRight(u.EscapedPath(), "/") + "/"
	u.Path, _ = url.PathUnescape(u.RawPath) // it has been escaped just now
	base, err := probe.Parse(u.String())
	if err != nil {
		return peer{}, err
	}
	return peer{name: cmp.Or(name, u.Host), named: named, url: u.String(), base: base}, nil
}

// withoutSecrets returns what of a peer's URL may be shown: no user, password or query.
func withoutSecrets(address string) string {
	address = probe.Redacted(address)
	if i := strings.IndexAny(address, "?#"); i >= 0 {
		address = address[:i] + address[i:i+1] + "xxxxx"
	}
	return address
}

func isPeerName(name string) bool {
	return name != "" && len(name) <= maxPeerName && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
}

// parsePeers reads several, and gives each a name of its own.
func parsePeers(raw []string) ([]peer, error) {
	var peers []peer
	for _, one := range raw {
		p, err := parsePeer(one)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(peers, func(other peer) bool { return other.name == p.name }) {
			return nil, fmt.Errorf("%q twice: want a name for each, as NAME=URL", p.name)
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// peerList is the value of IMAGELAB_PEERS. It is a struct, as package env would look
// for variables of their own for the elements of a slice of structs.
type peerList struct{ all []peer }

// UnmarshalText reads peers with commas between.
func (l *peerList) UnmarshalText(text []byte) error {
	var raw []string
	for one := range strings.SplitSeq(string(text), ",") {
		if one = strings.TrimSpace(one); one != "" {
			raw = append(raw, one)
		}
	}
	if len(raw) > maxPeers {
		return fmt.Errorf("%d peers: want at most %d", len(raw), maxPeers)
	}
	var err error
	l.all, err = parsePeers(raw)
	return err
}

// answered is what is wrong with a peer's answer. The peer itself is there.
type answered struct{ error }

// get returns what the peer serves under path.
func (p peer) get(ctx context.Context, path, token string) ([]byte, error) {
	headers := probe.Headers{{Name: "User-Agent", Value: "imagelab/" + version}, {Name: "Accept", Value: "application/json"}}
	if token != "" {
		if strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, errors.New("IMAGELAB_OPS_TOKEN has a character that no header can carry")
		}
		headers = append(headers, probe.Header{Name: "Authorization", Value: "Bearer " + token})
	}
	t := p.base
	t.Path += path
	resp, err := t.Request(ctx, probe.Options{Headers: headers})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := refusal(resp, t.Path, token); err != nil {
		return nil, answered{err}
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%s broke off: %w", t.Path, probe.Reason(err))
	}
	if len(content) > maxDocument {
		return nil, answered{fmt.Errorf("%s sends more than %d bytes, is this an imagelab's ops listener?", t.Path, maxDocument)}
	}
	return content, nil
}

// refusal says why the peer does not give what is under path, or nil.
func refusal(resp *http.Response, path, token string) error {
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized && token == "":
		return errors.New("it asks for a token, set IMAGELAB_OPS_TOKEN")
	case code == http.StatusUnauthorized:
		return errors.New("it does not take the token of IMAGELAB_OPS_TOKEN")
	case code == http.StatusMisdirectedRequest:
		return errors.New("it is not asked by this name without a token, set IMAGELAB_OPS_HOSTS there, or IMAGELAB_OPS_TOKEN for both")
	case code >= 300 && code < 400:
		location := probe.OneLine(resp.Header.Get("Location"))
		return fmt.Errorf("%s redirects to %q, which is not followed", path, location)
	case code != http.StatusOK:
		if content, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)); bytes.Contains(content, []byte(notInContainer)) {
			return errors.New("it runs in no container, so it has no report")
		}
		return fmt.Errorf("%s answers %d, is this an imagelab's ops listener?", path, code)
	}
	return nil
}

// askFor decodes what the peer serves under path, which has to be of that schema.
func askFor[T any](ctx context.Context, p peer, path, token string, schema int) (*T, error) {
	content, err := p.get(ctx, path, token)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	var head struct {
		Schema *int `json:"schema"`
	}
	value := new(T)
	switch err := json.Unmarshal(content, &head); {
	case err != nil || head.Schema == nil:
		return nil, answered{fmt.Errorf("%s%s is not what an imagelab serves", p.base.Path, path)}
	case *head.Schema != schema:
		return nil, answered{fmt.Errorf("%s%s has schema %d, and imagelab %s reads %d: use the same version for both",
			p.base.Path, path, *head.Schema, version, schema)}
	}
	if err := json.Unmarshal(content, value); err != nil {
		return nil, answered{fmt.Errorf("%s%s is not what an imagelab serves: %s", p.base.Path, path, probe.OneLine(err.Error()))}
	}
	return value, nil
}

// side asks the peer for its report, and under snapshot for its live facts.
func (p peer) side(ctx context.Context, snapshot, token string, timeout time.Duration) compare.Side {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	s := compare.Side{Name: p.name, URL: p.url}
	report, err := askFor[audit.Report](ctx, p, "audit", token, audit.Schema)
	if err != nil {
		s.Err = err
		return s
	}
	live, err := askFor[compare.Live](ctx, p, snapshot, token, compare.LiveSchema)
	if err != nil {
		s.Err = err
		return s
	}
	live.Bound()
	s.Report, s.Live = report, live
	return s
}

// askPeers asks all of them at once.
func askPeers(ctx context.Context, peers []peer, snapshot, token string, timeout time.Duration) []compare.Side {
	answers := make([]chan compare.Side, len(peers))
	for i, p := range peers {
		answers[i] = make(chan compare.Side, 1)
		go func() { answers[i] <- p.side(ctx, snapshot, token, timeout) }()
	}
	sides := make([]compare.Side, len(peers))
	for i := range answers {
		sides[i] = <-answers[i]
	}
	// What was not given a name is better known by its variant.
	for i, p := range peers {
		if r := sides[i].Report; !p.named && r != nil && isPeerName(r.Variant) &&
			!slices.ContainsFunc(sides, func(s compare.Side) bool { return s.Name == r.Variant }) {
			sides[i].Name = r.Variant
		}
	}
	return sides
}
