package audit

import (
	"bytes"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

func secretsInFiles(c *container) verdict {
	if c.tree.err != nil {
		return unknown(c.tree.err)
	}
	t := c.tree.value
	if t.secrets.count > 0 {
		return c.walked(fail("%s", &t.secrets).at(t.secrets.first()), t.unreadDirs+t.unreadFiles)
	}
	return c.walked(pass("none in %s", t.extent()), t.unreadDirs+t.unreadFiles)
}

// secretIn says what secret the file holds, or "". It never returns any of the
// content.
func secretIn(name string, data []byte) string {
	if kind := keyMaterial(data); kind != "" {
		return kind
	}
	kind := secretName(name)
	// These names are also used for plain settings.
	switch path.Base(name) {
	case ".npmrc":
		if !bytes.Contains(data, []byte("_auth")) && !bytes.Contains(data, []byte("_password")) {
			return ""
		}
	case ".pypirc":
		if !bytes.Contains(data, []byte("password")) {
			return ""
		}
	case "config.json":
		if !bytes.Contains(data, []byte(`"auth"`)) {
			return ""
		}
	}
	return kind
}

// secretName says what secret a file of that name holds, or "".
func secretName(name string) string {
	base := path.Base(name)
	switch base {
	case ".npmrc", ".pypirc", ".netrc", ".git-credentials":
		return "credentials by name"
	case "credentials":
		if path.Base(path.Dir(name)) == ".aws" {
			return "credentials by name"
		}
	case "config.json":
		if path.Base(path.Dir(name)) == ".docker" {
			return "registry credentials"
		}
	}
	switch {
	case strings.HasPrefix(base, "id_") && path.Ext(base) == "": // not id_rsa.pub
		return "ssh key by name"
	case base == ".env", strings.HasPrefix(base, ".env."):
		switch path.Ext(base) {
		case ".example", ".sample", ".template", ".dist":
			return ""
		}
		return "environment file"
	}
	return ""
}

// tokenForms are prefixes that services give their tokens to make them known,
// and what follows: at least min characters of the set.
var tokenForms = []struct {
	kind, prefix string
	min          int
	set          string
}{
	{"AWS access key", "AKIA", 16, upperDigits},
	{"AWS access key", "ASIA", 16, upperDigits},
	{"GitHub token", "ghp_", 36, alphanumerics},
	{"GitHub token", "gho_", 36, alphanumerics},
	{"GitHub token", "ghu_", 36, alphanumerics},
	{"GitHub token", "ghs_", 36, alphanumerics},
	{"GitHub token", "ghr_", 36, alphanumerics},
	{"GitLab token", "glpat-", 20, alphanumerics + "_-"},
	{"Slack token", "xoxb-", 20, alphanumerics + "-"},
	{"Slack token", "xoxp-", 20, alphanumerics + "-"},
	{"Slack token", "xoxa-", 20, alphanumerics + "-"},
	{"Slack token", "xoxs-", 20, alphanumerics + "-"},
	{"Slack token", "xoxr-", 20, alphanumerics + "-"},
}

const (
	upperDigits   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	alphanumerics = upperDigits + "abcdefghijklmnopqrstuvwxyz"
)

// keyMaterial says what secret is in data, or "". Plain searches for bytes, as
// it sees every small file of an image.
func keyMaterial(data []byte) string {
	if hasPrivateKey(data) {
		return "private key"
	}
	for _, form := range tokenForms {
		for at := 0; ; {
			i := bytes.Index(data[at:], []byte(form.prefix))
			if i < 0 {
				break
			}
			start := at + i
			at = start + len(form.prefix)
			if start > 0 && strings.IndexByte(alphanumerics, data[start-1]) >= 0 {
				continue // in the middle of a word
			}
			n := 0
			for n < len(data)-at && strings.IndexByte(form.set, data[at+n]) >= 0 {
				n++
			}
			// Amazon's documentation uses keys that end so.
			if n >= form.min && !bytes.HasSuffix(data[at:at+n], []byte("EXAMPLE")) {
				return form.kind
			}
		}
	}
	return ""
}

// hasPrivateKey finds a PEM header that a key follows: documentation and
// programs often have the header alone. JSON writes the newlines as \n.
func hasPrivateKey(data []byte) bool {
	const base64Digits = alphanumerics + "+/="
	for {
		i := bytes.Index(data, []byte("PRIVATE KEY"))
		if i < 0 {
			return false
		}
		head := data[max(0, i-32):i]
		data = data[i+len("PRIVATE KEY"):]
		body, ok := bytes.CutPrefix(data, []byte("-----"))
		if !ok {
			body, ok = bytes.CutPrefix(data, []byte(" BLOCK-----")) // PGP
		}
		if !ok || !bytes.Contains(head, []byte("-----BEGIN ")) {
			continue
		}
		body = body[:min(len(body), 512)]
		for line := range strings.SplitSeq(strings.ReplaceAll(string(body), `\n`, "\n"), "\n") {
			line = strings.Trim(line, " \t\r\",'")
			if line == "" || strings.Contains(line, ": ") { // Proc-Type: 4,ENCRYPTED
				continue
			}
			if len(line) >= 32 && strings.Trim(line, base64Digits) == "" {
				return true
			}
			break
		}
	}
}

// secretsInEnv looks at the auditor's own environment, which docker exec fills
// as it does the container's, and at PID 1's, which has what an entrypoint
// exported.
func secretsInEnv(c *container) verdict {
	found := secretNames(c.sys.Environ, c.sys.PublicEnv)
	v := verdict{}
	evidence := plural(len(c.sys.Environ), "variable") + " of the auditor"
	if c.sys.PID != 1 && !c.hostPID {
		name := c.subjectDir + "/environ"
		data, err := c.read(name)
		switch {
		case err != nil && c.isBeside():
			return unknown(err)
		case err != nil:
			v.incomplete = 1
			v.reason = "PID 1's environment could not be read (" + err.Error() + "): what an entrypoint exported is not known"
		default:
			environ := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
			found = append(found, secretNames(environ, c.sys.PublicEnv)...)
			evidence = fmt.Sprintf("%s and %d of PID 1", evidence, len(environ))
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if len(found) == 0 {
		v.status, v.evidence = Pass, "none among "+evidence
		return v
	}
	v.status, v.evidence = Fail, "by name or form, the value is not shown: "+strings.Join(firstFew(found), ", ")
	return v.at(found[0])
}

// isBeside says whether the auditor runs in another container that shares the pid
// namespace of the judged one, such as a Kubernetes ephemeral container. Mount ids
// are unique, so the first line tells one mount namespace from another.
func (c *container) isBeside() bool {
	own, err1 := c.read("/proc/self/mountinfo")
	theirs, err2 := c.read(c.subjectDir + "/mountinfo")
	ownLine, _, _ := bytes.Cut(own, []byte("\n"))
	theirLine, _, _ := bytes.Cut(theirs, []byte("\n"))
	return err1 == nil && err2 == nil && !bytes.Equal(ownLine, theirLine)
}

// secretNames returns the names of variables that hold a secret.
func secretNames(environ, public []string) []string {
	var names []string
	for _, v := range environ {
		name, value, ok := strings.Cut(v, "=")
		if ok && isSecret(name, value) && !slices.Contains(public, name) {
			names = append(names, name)
		}
	}
	return names
}

// isSecret goes by the name, unless the value is none that a secret would have:
// a path, a switch, a number. A URL with a password is one under any name.
func isSecret(name, value string) bool {
	if u, err := url.Parse(value); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok && password != "" {
			return true
		}
	}
	lower := strings.ToLower(name)
	if !slices.ContainsFunc([]string{"passw", "secret", "token", "apikey", "api_key", "access_key", "private_key", "credential"},
		func(word string) bool { return strings.Contains(lower, word) }) {
		return false
	}
	if value == "" || strings.HasPrefix(value, "/") || strings.HasSuffix(lower, "_file") {
		return false
	}
	if _, err := strconv.ParseBool(value); err == nil {
		return false
	}
	_, err := strconv.ParseFloat(value, 64)
	return err != nil
}

func serviceAccountToken(c *container) verdict {
	if !c.kubernetes {
		return notApplicable("not in Kubernetes")
	}
	const name = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	_, err := c.stat(name)
	switch {
	case err == nil:
		return warn("%s", name)
	case isAbsent(err):
		return pass("no %s", name)
	}
	return unknown(err)
}
