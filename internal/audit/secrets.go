package audit

import (
	"bytes"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

func secretsInFiles(c *container) verdict {
	if c.tree.err != nil {
		return unknown(c.tree.err)
	}
	t := c.tree.value
	if t.secrets.count > 0 {
		return c.walked(fail("%s", &t.secrets).found(&t.secrets), t.unreadDirs+t.unreadFiles)
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
	switch base := path.Base(name); base {
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
	default:
		if isSettingsName(base) {
			if setting := secretSetting(data); setting != "" {
				return "setting " + setting
			}
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
	case slices.Contains([]string{"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"}, base):
		return "ssh key by name"
	case isSettingsName(base) && strings.HasPrefix(base, ".env"):
		return "environment file"
	}
	return ""
}

// isSettingsName says whether files of that name hold NAME=value or NAME: value.
// An example is none.
func isSettingsName(base string) bool {
	switch path.Ext(base) {
	case ".example", ".sample", ".template", ".dist", ".defaults", ".tmpl", ".md":
		return false
	case ".env":
		return true
	}
	switch base {
	case ".pgpass", ".my.cnf", "wp-config.php", "secrets.yml", "secrets.yaml", "application.properties",
		"application.yml", "application-prod.properties", "appsettings.json", "appsettings.Production.json",
		"settings.ini", "local.settings.json", "terraform.tfvars", "database.yml", "credentials.json":
		return true
	}
	return strings.HasPrefix(base, ".env.")
}

// secretSetting returns the name of a setting in the file whose value is a secret,
// or "". What a variable stands for is in another place.
func secretSetting(data []byte) string {
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "#") || strings.HasPrefix(text, "//") || strings.HasPrefix(text, ";") {
			continue
		}
		text = strings.TrimPrefix(text, "export ")
		i := strings.IndexAny(text, "=:")
		if i < 0 {
			continue
		}
		name := strings.Trim(text[:i], ` \t"'`)
		name = name[strings.LastIndexAny(name, ".: ")+1:]
		value := strings.Trim(strings.TrimSpace(text[i+1:]), `"',;`)
		if isPlaceholder(value) || strings.ContainsAny(name, " (){}<>") {
			continue
		}
		if isSecret(name, value) {
			return name
		}
	}
	return ""
}

// isPlaceholder says whether the value only stands for a secret.
func isPlaceholder(value string) bool {
	lower := strings.ToLower(value)
	for _, start := range []string{"$", "<", "{{", "%", "changeme", "change_me", "your"} {
		if strings.HasPrefix(lower, start) {
			return true
		}
	}
	return strings.Trim(lower, "x*.") == "" || lower == "null" || lower == "none"
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
	{"GitHub token", "github_pat_", 50, alphanumerics + "_"},
	{"GitLab token", "glpat-", 20, alphanumerics + "_-"},
	{"GitLab token", "gldt-", 20, alphanumerics + "_-"},
	{"Slack token", "xoxb-", 20, alphanumerics + "-"},
	{"Slack token", "xoxp-", 20, alphanumerics + "-"},
	{"Slack token", "xoxa-", 20, alphanumerics + "-"},
	{"Slack token", "xoxs-", 20, alphanumerics + "-"},
	{"Slack token", "xoxr-", 20, alphanumerics + "-"},
	{"Slack webhook", "hooks.slack.com/services/T", 30, alphanumerics + "/"},
	{"Stripe key", "sk_live_", 16, alphanumerics},
	{"Stripe key", "sk_test_", 16, alphanumerics},
	{"Stripe key", "rk_live_", 16, alphanumerics},
	{"Google API key", "AIza", 35, alphanumerics + "_-"},
	{"Google OAuth secret", "GOCSPX-", 28, alphanumerics + "_-"},
	{"npm token", "npm_", 36, alphanumerics},
	{"PyPI token", "pypi-AgEIcHlwaS5vcmc", 40, alphanumerics + "_-"},
	{"SendGrid key", "SG.", 60, alphanumerics + "_-."},
	{"OpenAI key", "sk-proj-", 40, alphanumerics + "_-"},
	{"Anthropic key", "sk-ant-", 40, alphanumerics + "_-"},
	{"DigitalOcean token", "dop_v1_", 64, alphanumerics},
	{"Docker Hub token", "dckr_pat_", 27, alphanumerics + "_-"},
	{"Hugging Face token", "hf_", 34, alphanumerics},
	{"HashiCorp Vault token", "hvs.", 24, alphanumerics + "_-"},
	{"Shopify token", "shpat_", 32, alphanumerics},
	{"age key", "AGE-SECRET-KEY-1", 50, alphanumerics},
	{"GitLab token", "glrt-", 20, alphanumerics + "_-"},
	{"Slack token", "xapp-", 30, alphanumerics + "-"},
	{"Stripe key", "rk_test_", 16, alphanumerics},
	{"Stripe webhook secret", "whsec_", 32, alphanumerics},
	{"Grafana token", "glsa_", 32, alphanumerics + "_"},
	{"Databricks token", "dapi", 32, "0123456789abcdef"},
	{"Shopify token", "shpss_", 32, alphanumerics},
	{"Tailscale key", "tskey-", 20, alphanumerics + "-"},
	{"RubyGems key", "rubygems_", 48, alphanumerics},
	{"OpenAI key", "sk-svcacct-", 40, alphanumerics + "_-"},
	{"Groq key", "gsk_", 52, alphanumerics},
	{"Sentry token", "sntrys_", 60, alphanumerics + "_+/="},
	{"JSON Web Token", "eyJ", 60, alphanumerics + "_-."},
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
			// A token ends where its set does, and Amazon's documentation uses keys that
			// end in EXAMPLE.
			token := data[at : at+n]
			if form.prefix == "eyJ" && (bytes.Count(token, []byte(".")) != 2 || !bytes.Contains(token, []byte(".eyJ"))) {
				continue
			}
			if n >= form.min && !bytes.HasSuffix(token, []byte("EXAMPLE")) {
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
// exported; and at the arguments of PID 1 and what it has started, which everybody
// may read who may read /proc.
func secretsInEnv(c *container) verdict {
	found := secretNames(c.sys.Environ, c.sys.PublicEnv)
	v := verdict{}
	evidence := plural(len(c.sys.Environ), "variable") + " of the auditor"
	for _, pid := range c.withEnvironment() {
		data, err := c.read(procDir(pid) + "/environ")
		if err != nil {
			v.incomplete++
			v.reason = fmt.Sprintf("the environment of process %d could not be read (%v): "+
				"what an entrypoint exported is not known", pid, err)
			continue
		}
		environ := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
		found = append(found, secretNames(environ, c.sys.PublicEnv)...)
		evidence = fmt.Sprintf("%s and %d of PID %d", evidence, len(environ), pid)
	}
	slices.Sort(found)
	found = slices.Compact(found)
	passed := c.secretArguments()
	if len(found)+len(passed) == 0 {
		v.status, v.evidence = Pass, "none among "+evidence
		return v
	}
	v.status, v.evidence = Fail, "by name or form, the value is not shown: "+strings.Join(firstFew(slices.Concat(found, passed)), ", ")
	return v.at(found...)
}

// secretArguments returns which arguments of the container's first process, and of those below
// it, hold a secret, such as "redis-server --requirepass".
func (c *container) secretArguments() (found []string) {
	if c.hostPID || c.first == 0 {
		return nil
	}
	seen := map[int]bool{}
	for todo := []int{c.first}; len(todo) > 0; todo = todo[1:] {
		pid := todo[0]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		todo = append(todo, c.children(pid)...)
		if argv := c.commandLine(pid); len(argv) > 1 {
			for _, name := range secretArguments(argv[1:]) {
				found = append(found, c.programName(pid)+" "+name)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// secretArguments names the arguments that hold a secret: a flag by its name, anything else by
// its number. The value of a flag is behind "=" or is the next argument.
func secretArguments(args []string) (found []string) {
	for i := 0; i < len(args); i++ {
		number, isFlag := i+1, strings.HasPrefix(args[i], "-")
		name, value, ok := strings.Cut(args[i], "=")
		isNext := !ok && isFlag && number < len(args) && !strings.HasPrefix(args[number], "-")
		switch {
		case isNext:
			value = args[number]
		case !ok:
			name, value = "", args[i]
		}
		if !isSecret(strings.TrimLeft(name, "-"), value) {
			continue
		}
		if !isFlag || name == "" || strings.ContainsFunc(name, unicode.IsSpace) {
			name = fmt.Sprintf("argument %d", number)
		}
		if isNext {
			i++ // it is told with its flag
		}
		if !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	return found
}

// withEnvironment returns the processes whose environment is the container's: the
// first one, and its children where it is an init or a shell that may have exported
// more.
func (c *container) withEnvironment() []int {
	if c.sys.PID == 1 || c.hostPID || c.first == 0 {
		return nil
	}
	pids := []int{c.first}
	if name := c.programName(c.first); isInit(name) || isShell(name) {
		for _, child := range c.children(c.first) {
			pids = append(pids, child)
			if isShell(c.programName(child)) {
				pids = append(pids, c.children(child)...)
			}
		}
	}
	return pids
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

// isSecret goes by the words of the name and by the form of the value. A URL with a
// password is a secret under any name, and so is a token that its provider marks.
func isSecret(name, value string) bool {
	if hasURLPassword(value) || hasConnectionPassword(value) || keyMaterial([]byte(value)) != "" {
		return true
	}
	if value == "" || !isSecretName(name) {
		return false
	}
	_, err := strconv.ParseBool(value)
	return err != nil && !isPath(value)
}

// isPath says whether the value is a path rather than a secret that begins with /.
func isPath(value string) bool {
	for _, dir := range []string{
		"run", "var", "etc", "secrets", "mnt", "home", "root", "tmp", "opt", "usr", "app", "data", "srv", "vault", "config",
	} {
		if strings.HasPrefix(value, "/"+dir+"/") {
			return true
		}
	}
	return false
}

// hasURLPassword says whether the value is a URL with a password in it.
func hasURLPassword(value string) bool {
	u, err := url.Parse(value)
	if err != nil || u.User == nil {
		return false
	}
	password, ok := u.User.Password()
	return ok && password != "" && !strings.HasPrefix(password, "$")
}

// hasConnectionPassword says whether the value is a connection string such as
// Server=db;User Id=sa;Password=x or host=db password=x.
func hasConnectionPassword(value string) bool {
	fields := strings.FieldsFunc(value, func(r rune) bool { return r == ';' || r == ' ' || r == '&' || r == '?' })
	if len(fields) < 2 {
		return false
	}
	for _, field := range fields {
		key, password, ok := strings.Cut(field, "=")
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "password", "pwd", "accountkey", "sharedaccesskey":
			if ok && strings.TrimSpace(password) != "" && !strings.HasPrefix(password, "$") {
				return true
			}
		}
	}
	return false
}

// Words of names of variables, in upper case, as they stand between underscores.
var (
	secretWords = []string{
		"PASSWORD", "PASSWD", "PASSPHRASE", "PASS", "PWD", "PW", "SECRET", "SECRETS", "TOKEN", "APIKEY",
		"CREDENTIAL", "CREDENTIALS", "PASSWORDS", "TOKENS", "SECRETKEY", "ACCESSKEY", "PRIVATEKEY", "AUTHTOKEN",
		"PGPASSWORD", "ACCESSTOKEN", "CLIENTSECRET", "PAT", "REQUIREPASS", "MASTERAUTH",
	}
	// keyOwners are the words after which KEY is a secret.
	keyOwners = []string{
		"APP", "ENCRYPTION", "ENCRYPT", "SIGNING", "SIGN", "MASTER", "API", "JWT", "STRIPE", "PRIVATE", "SECRET",
		"ACCESS", "SESSION", "AUTH", "HMAC", "AES", "ACCOUNT", "STORAGE", "OPENAI", "SENDGRID", "MAILGUN", "COOKIE",
		"CRYPTO", "DEPLOY", "LICENSE", "SERVICE", "WEBHOOK", "SSH",
	}
	// harmlessEnds make a name that of something about a secret.
	harmlessEnds = []string{
		"TTL", "NAME", "URL", "URI", "ISSUER", "POLICY", "PROVIDER", "BACKEND", "HASHER", "TYPE", "FILE", "PATH",
		"DIR", "LENGTH", "SIZE", "LIMIT", "COUNT", "EXPIRY", "EXPIRES", "EXPIRATION", "LIFETIME", "TIMEOUT", "AGE",
		"ENABLED", "REQUIRED", "ENDPOINT", "HOST", "PORT", "HEADER", "ALGORITHM", "ALG", "MODE", "MIN", "MAX",
		"AUDIENCE", "REGION", "VERSION", "FORMAT", "PREFIX", "MANAGER", "STORE", "ROTATION", "ID", "INTERVAL",
		"METHOD", "SCOPE", "SCOPES", "FIELD", "LOCATION", "DAYS", "HOURS", "SECONDS", "MINUTES", "CLASS",
		"PARALLELISM", "ARN", "KEYID", "ENCRYPTION", "AUTHENTICATION", "THROUGH",
	}
)

// isSecretName says whether the words of the name are those of a secret.
func isSecretName(name string) bool {
	words := strings.FieldsFunc(strings.ToUpper(name), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
	if len(words) == 0 || name == "PWD" || name == "OLDPWD" { // a shell's directories
		return false
	}
	if last := words[len(words)-1]; slices.Contains(harmlessEnds, last) {
		return false
	}
	if words[0] == "MAX" || words[0] == "MIN" || words[0] == "NUM" {
		return false
	}
	for i, word := range words {
		switch {
		case slices.Contains(secretWords, word):
			return true
		case word == "KEY" && i > 0 && slices.Contains(keyOwners, words[i-1]):
			return true
		}
	}
	return false
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
