package audit

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	if kind := keyFile(data); kind != "" {
		return kind
	}
	kind, base := secretName(name), path.Base(name)
	// These names are also used for plain settings.
	switch base {
	case ".npmrc":
		if !hasLogin(data) {
			return ""
		}
	case ".pypirc":
		if !bytes.Contains(data, []byte("password")) {
			return ""
		}
	case "config.json", ".dockercfg":
		if !bytes.Contains(data, []byte(`"auth"`)) {
			return ""
		}
	default:
		switch {
		case isSettingsName(name):
			kind = ""
			if setting := secretSetting(base, data); setting != "" {
				kind = "setting " + setting
			}
		case bytes.HasPrefix(data, []byte("#!")):
			if variable := exportedSecret(data); variable != "" {
				kind = "variable " + variable
			}
		}
		if kind == "" && hasAddressPassword(data) {
			kind = "password in an address"
		}
	}
	return kind
}

// secretName says what secret a file of that name holds, or "".
func secretName(name string) string {
	base := path.Base(name)
	switch base {
	case ".npmrc", ".pypirc", ".netrc", ".git-credentials", ".pgpass", ".vault-token", "master.key":
		return "credentials by name"
	case "credentials":
		if path.Base(path.Dir(name)) == ".aws" {
			return "credentials by name"
		}
	case "config.json":
		if path.Base(path.Dir(name)) == ".docker" {
			return "registry credentials"
		}
	case ".dockercfg":
		return "registry credentials"
	}
	switch {
	case slices.Contains([]string{"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"}, base):
		return "ssh key by name"
	case strings.HasSuffix(base, ".p12"), strings.HasSuffix(base, ".pfx"):
		return "key store by name"
	case isSettingsName(name) && strings.HasPrefix(base, ".env"):
		return "environment file"
	}
	return ""
}

// isSettingsName says whether files of that name hold NAME=value or NAME: value.
// An example is none.
func isSettingsName(name string) bool {
	base := path.Base(name)
	switch path.Ext(base) {
	case ".example", ".sample", ".template", ".dist", ".defaults", ".tmpl", ".md":
		return false
	case ".env":
		return true
	}
	switch base {
	case ".my.cnf", "wp-config.php", "secrets.yml", "secrets.yaml", "application.properties",
		"application.yml", "application-prod.properties", "appsettings.json", "appsettings.Production.json",
		"settings.ini", "local.settings.json", "terraform.tfvars", "terraform.tfstate", "database.yml", "credentials.json",
		"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "settings.py", "gradle.properties",
		"settings.xml", "auth.json", "kubeconfig", ".s3cfg", "rclone.conf", "redis.conf":
		return true
	case "config":
		return path.Base(path.Dir(name)) == ".kube"
	}
	return strings.HasPrefix(base, ".env.")
}

// secretSetting returns the name of a setting in the file whose value is a secret,
// or "". What a variable stands for is in another place.
func secretSetting(base string, data []byte) string {
	for line := range bytes.Lines(data) {
		name, text := setting(base, strings.TrimSpace(string(line)))
		value := strings.Trim(text, `"',;`)
		// A list or a block has what is in it in lines of their own, and a program its values in quotes.
		if isPlaceholder(value) || strings.ContainsAny(name, " (){}<>") || strings.ContainsAny(text[:min(len(text), 1)], "[{|>") ||
			path.Ext(base) == ".py" && !strings.ContainsAny(text[:min(len(text), 1)], `"'`) {
			continue
		}
		if isSecret(name, value) {
			return name
		}
	}
	return ""
}

// setting takes a line apart, as the kind of file has it.
func setting(base, text string) (name, value string) {
	if text == "" || strings.HasPrefix(text, "#") || strings.HasPrefix(text, "//") || strings.HasPrefix(text, ";") {
		return "", ""
	}
	separators := "=:"
	switch base {
	case "redis.conf":
		separators = " "
	case "settings.xml": // of Maven
		if _, text, _ = strings.Cut(text, "<password>"); text != "" {
			value, _, _ = strings.Cut(text, "<")
		}
		return "password", value
	case "wp-config.php":
		text = strings.TrimSuffix(strings.TrimPrefix(text, "define("), ");")
		separators = "="
		if strings.HasPrefix(strings.TrimSpace(text), "'") {
			separators = ","
		}
		text = strings.TrimSpace(text)
	}
	text = strings.TrimPrefix(text, "export ")
	i := strings.IndexAny(text, separators)
	if i < 0 {
		return "", ""
	}
	name = strings.Trim(text[:i], " \t\"'`$")
	return name[strings.LastIndexAny(name, ".: ")+1:], strings.TrimSpace(text[i+1:])
}

// hasLogin says whether a line of .npmrc has more than a variable for a password or token.
func hasLogin(data []byte) bool {
	for line := range bytes.Lines(data) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		if (strings.Contains(name, "_auth") || strings.Contains(name, "_password")) && !strings.HasPrefix(strings.TrimSpace(value), "$") {
			return true
		}
	}
	return false
}

// exportedSecret returns the name of a variable that a script exports, and whose value is a secret that stands there.
func exportedSecret(data []byte) string {
	for line := range bytes.Lines(data) {
		text, exports := strings.CutPrefix(strings.TrimSpace(string(line)), "export ")
		name, value, _ := strings.Cut(text, "=")
		if exports && isSecretName(name) && isRandom(strings.Trim(value, `"'`)) {
			return name
		}
	}
	return ""
}

// hasAddressPassword says whether there is a URL with a password in it, and not with a word that stands for one.
func hasAddressPassword(data []byte) bool {
	for {
		i := bytes.Index(data, []byte("://"))
		if i < 0 {
			return false
		}
		data = data[i+len("://"):]
		login := data[:min(len(data), 200)]
		if at := bytes.IndexAny(login, "@/ \t\r\n\"'`<>"); at < 0 || login[at] != '@' {
			continue
		} else if _, password, _ := strings.Cut(string(login[:at]), ":"); isRandom(password) {
			return true
		}
	}
}

// isRandom says whether the text is a password in all likelihood, and not a word for one: eight characters or more, with
// letters and digits.
func isRandom(text string) bool {
	const passwords = alphanumerics + "-_.~!%+=/"
	return len(text) >= 8 && strings.Trim(text, passwords) == "" && strings.ContainsAny(text, "0123456789") &&
		strings.ContainsAny(strings.ToUpper(text), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") && !strings.HasPrefix(strings.ToLower(text), "pass") && !isPath(text)
}

// keyFile says what private key data holds in a form of its own, or "".
func keyFile(data []byte) string {
	// The beginning of a PEM header, in base64 as Kubernetes writes keys.
	const encoded = "LS0tLS1CRUdJTi"
	const base64Digits = alphanumerics + "+/"
	if bytes.HasPrefix(data, []byte("PuTTY-User-Key-File-")) && bytes.Contains(data, []byte("\nPrivate-Lines: ")) {
		return "PuTTY key"
	}
	for rest := data; ; {
		i := bytes.Index(rest, []byte(encoded))
		if i < 0 {
			break
		}
		rest = rest[i:]
		var head [48]byte
		if n, _ := base64.StdEncoding.Decode(head[:], rest[:min(len(rest), 64)]); bytes.Contains(head[:n], []byte("PRIVATE KEY")) {
			return "private key in base64"
		}
		rest = rest[len(encoded):]
	}
	if key := assigned(data, "PrivateKey", '='); span(key, base64Digits) == 43 && bytes.HasPrefix(key[43:], []byte("=")) {
		return "WireGuard key"
	}
	if key, quoted := bytes.CutPrefix(assigned(data, `"d"`, ':'), []byte(`"`)); quoted && span(key, urlCharacters) >= 40 && bytes.Contains(data, []byte(`"kty"`)) {
		return "JSON Web Key"
	}
	return ""
}

// assigned returns what stands behind the first NAME and its separator.
func assigned(data []byte, name string, separator byte) []byte {
	for {
		i := bytes.Index(data, []byte(name))
		if i < 0 {
			return nil
		}
		data = data[i+len(name):]
		if value := bytes.TrimLeft(data, " \t"); len(value) > 0 && value[0] == separator {
			return bytes.TrimLeft(value[1:], " \t")
		}
	}
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

// A tokenForm is a prefix that a service gives its tokens to make them known, and what follows: at least min
// characters of the set.
type tokenForm struct {
	kind, prefix string
	min          int
	set          string
}

var tokenForms = []tokenForm{
	{"AWS access key", "AKIA", 16, upperDigits},
	{"AWS access key", "ASIA", 16, upperDigits},
	{"GitHub token", "ghp_", 36, alphanumerics},
	{"GitHub token", "gho_", 36, alphanumerics},
	{"GitHub token", "ghu_", 36, alphanumerics},
	{"GitHub token", "ghs_", 36, alphanumerics},
	{"GitHub token", "ghr_", 36, alphanumerics},
	{"GitHub token", "github_pat_", 50, alphanumerics + "_"},
	{"GitLab token", "glpat-", 20, urlCharacters},
	{"GitLab token", "gldt-", 20, urlCharacters},
	{"GitLab token", "glrt-", 20, urlCharacters},
	{"GitLab token", "glptt-", 40, hexDigits},
	{"GitLab token", "glft-", 20, urlCharacters},
	{"GitLab token", "glagent-", 50, urlCharacters},
	{"Slack token", "xoxb-", 20, alphanumerics + "-"},
	{"Slack token", "xoxp-", 20, alphanumerics + "-"},
	{"Slack token", "xoxa-", 20, alphanumerics + "-"},
	{"Slack token", "xoxs-", 20, alphanumerics + "-"},
	{"Slack token", "xoxr-", 20, alphanumerics + "-"},
	{"Slack token", "xapp-", 30, alphanumerics + "-"},
	{"Slack webhook", "hooks.slack.com/services/T", 30, alphanumerics + "/"},
	{"Discord webhook", "discord.com/api/webhooks/", 80, urlCharacters + "/"},
	{"Stripe key", "sk_live_", 16, alphanumerics},
	{"Stripe key", "sk_test_", 16, alphanumerics},
	{"Stripe key", "rk_live_", 16, alphanumerics},
	{"Stripe key", "rk_test_", 16, alphanumerics},
	{"Stripe webhook secret", "whsec_", 32, alphanumerics},
	{"Google API key", "AIza", 35, urlCharacters},
	{"Google OAuth secret", "GOCSPX-", 28, urlCharacters},
	{"npm token", "npm_", 36, alphanumerics},
	{"PyPI token", "pypi-AgEIcHlwaS5vcmc", 40, urlCharacters},
	{"RubyGems key", "rubygems_", 48, alphanumerics},
	{"SendGrid key", "SG.", 60, urlCharacters + "."},
	{"OpenAI key", "sk-proj-", 40, urlCharacters},
	{"OpenAI key", "sk-svcacct-", 40, urlCharacters},
	{"Anthropic key", "sk-ant-", 40, urlCharacters},
	{"Groq key", "gsk_", 52, alphanumerics},
	{"Perplexity key", "pplx-", 48, alphanumerics},
	{"Replicate token", "r8_", 37, alphanumerics},
	{"Hugging Face token", "hf_", 34, alphanumerics},
	{"DigitalOcean token", "dop_v1_", 64, alphanumerics},
	{"DigitalOcean token", "doo_v1_", 64, alphanumerics},
	{"DigitalOcean token", "dor_v1_", 64, alphanumerics},
	{"Docker Hub token", "dckr_pat_", 27, urlCharacters},
	{"HashiCorp Vault token", "hvs.", 24, urlCharacters},
	{"HashiCorp Vault token", "hvb.", 100, urlCharacters},
	{"Shopify token", "shpat_", 32, alphanumerics},
	{"Shopify token", "shpss_", 32, alphanumerics},
	{"Shopify token", "shpca_", 32, alphanumerics},
	{"age key", "AGE-SECRET-KEY-1", 50, alphanumerics},
	{"Grafana token", "glsa_", 32, alphanumerics + "_"},
	{"Grafana token", "glc_eyJ", 60, alphanumerics + "+/="},
	{"Databricks token", "dapi", 32, hexDigits},
	{"Tailscale key", "tskey-", 20, alphanumerics + "-"},
	{"Sentry token", "sntrys_", 60, alphanumerics + "_+/="},
	{"Sentry token", "sntryu_", 64, hexDigits},
	{"Linear key", "lin_api_", 40, alphanumerics},
	{"New Relic key", "NRAK-", 27, upperDigits},
	{"Notion token", "ntn_", 40, alphanumerics},
	{"Postman key", "PMAK-", 59, hexDigits + "-"},
	{"Pulumi token", "pul-", 40, hexDigits},
	{"Prefect key", "pnu_", 36, alphanumerics},
	{"Doppler token", "dp.pt.", 40, alphanumerics},
	{"PlanetScale token", "pscale_tkn_", 32, urlCharacters + "."},
	{"PlanetScale token", "pscale_pw_", 32, urlCharacters + "."},
	{"Atlassian token", "ATATT3", 100, urlCharacters + "="},
	{"Artifactory key", "AKCp", 69, alphanumerics},
	{"Square token", "sq0atp-", 22, urlCharacters},
	{"Brevo key", "xkeysib-", 80, alphanumerics + "-"},
	{"Fly.io token", "fo1_", 43, urlCharacters},
	{"Dynatrace token", "dt0c01.", 80, upperDigits + "."},
	{"SonarQube token", "sqp_", 40, hexDigits},
	{"SonarQube token", "squ_", 40, hexDigits},
	{"Sourcegraph token", "sgp_", 40, hexDigits},
	{"OpenShift token", "sha256~", 43, urlCharacters},
	{"Netlify token", "nfp_", 36, alphanumerics},
	{"Buildkite token", "bkua_", 40, hexDigits},
	{"CircleCI token", "CCIPAT_", 40, alphanumerics + "_"},
	{"Cloudflare key", "v1.0-", 171, hexDigits + "-"},
	{"Figma token", "figd_", 40, urlCharacters},
	{"Supabase token", "sbp_", 40, hexDigits},
	{"Azure storage key", "AccountKey=", 80, alphanumerics + "+/="},
	{"Twilio key", "SK", 32, hexDigits},
	{"JSON Web Token", "eyJ", 60, urlCharacters + "."},
}

// innerForms are tokens that have their mark inside: at least as many characters of a set before and behind it.
var innerForms = []struct {
	kind, mark string
	before     int
	set        string
	behind     int
	rest       string
}{
	{"OpenAI key", "T3BlbkFJ", 20, urlCharacters, 20, urlCharacters},
	{"Terraform token", ".atlasv1.", 14, alphanumerics, 60, urlCharacters},
	{"Telegram token", ":AA", 8, "0123456789", 33, urlCharacters},
	{"Azure client secret", "8Q~", 3, alphanumerics, 31, urlCharacters + "~."},
}

const (
	hexDigits     = "0123456789abcdef"
	upperDigits   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	alphanumerics = upperDigits + "abcdefghijklmnopqrstuvwxyz"
	urlCharacters = alphanumerics + "_-"
)

// formsFrom has the forms by the first byte of their prefix.
var formsFrom = sync.OnceValue(func() *[256][]tokenForm {
	var by [256][]tokenForm
	for _, form := range tokenForms {
		by[form.prefix[0]] = append(by[form.prefix[0]], form)
	}
	return &by
})

// keyMaterial says what secret is in data, or "". It sees every small file of an image, so it looks at each byte once,
// and more closely at the beginnings of words.
func keyMaterial(data []byte) string {
	if hasPrivateKey(data) {
		return "private key"
	}
	forms, inWord := formsFrom(), false
	for i, b := range data {
		starts := !inWord
		inWord = b|0x20 >= 'a' && b|0x20 <= 'z' || b >= '0' && b <= '9'
		if !starts || !inWord {
			continue
		}
		for _, form := range forms[b] {
			if form.begins(data[i:]) {
				return form.kind
			}
		}
	}
	for _, form := range innerForms {
		for at := 0; ; at += len(form.mark) {
			i := bytes.Index(data[at:], []byte(form.mark))
			if i < 0 {
				break
			}
			at += i
			if span(data[at+len(form.mark):], form.rest) >= form.behind && spanBack(data[:at], form.set) >= form.before {
				return form.kind
			}
		}
	}
	return ""
}

// begins says whether data begins with such a token. A token ends where its set does.
func (f tokenForm) begins(data []byte) bool {
	if !bytes.HasPrefix(data, []byte(f.prefix)) {
		return false
	}
	token := data[len(f.prefix):]
	token = token[:span(token, f.set)]
	switch {
	case len(token) < f.min:
		return false
	case f.prefix == "eyJ":
		return bytes.Count(token, []byte(".")) == 2 && bytes.Contains(token, []byte(".eyJ"))
	}
	// Amazon's documentation uses keys that end in EXAMPLE, others' one character again and again.
	return !bytes.HasSuffix(token, []byte("EXAMPLE")) && bytes.Count(token, token[:1]) < len(token)
}

// span is how many bytes of the set data begins with, spanBack how many it ends with.
func span(data []byte, set string) int {
	n := 0
	for n < len(data) && strings.IndexByte(set, data[n]) >= 0 {
		n++
	}
	return n
}

func spanBack(data []byte, set string) int {
	n := 0
	for n < len(data) && strings.IndexByte(set, data[len(data)-1-n]) >= 0 {
		n++
	}
	return n
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
		if argv := c.commandLine(pid); len(argv) > 0 {
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
