package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A leak is a form in which secrets lie in images: a file, made anew in each run, so that nothing that looks like a
// real one is in the repository.
type leak struct {
	group, form string
	path        string // below the file's own folder
	content     func() string
}

const (
	capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits   = "0123456789"
	letters  = "abcdefghijklmnopqrstuvwxyz"
	alnum    = capitals + letters + digits
	lowHex   = digits + "abcdef"
	base64er = alnum + "+/"
	urlSafe  = alnum + "-_"
)

// some is n characters of the set, by chance.
func some(n int, set string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = set[rand.IntN(len(set))]
	}
	return string(b)
}

// pemKey is what looks like a key, of as many lines.
func pemKey(kind string, lines int) string {
	return "-----BEGIN " + kind + "-----\n" + pemBody(lines) + "-----END " + kind + "-----\n"
}

func pemBody(lines int) string {
	var b strings.Builder
	for range lines - 1 {
		b.WriteString(some(64, base64er) + "\n")
	}
	return b.String() + some(30, base64er) + "==\n"
}

func indented(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+by) + "\n"
}

func jwt() string {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	return part(`{"alg":"HS256","typ":"JWT"}`) + "." + part(`{"sub":"`+some(20, alnum)+`","iat":1700000000}`) + "." + some(43, urlSafe)
}

// password is one that a person or a generator would choose.
func password() string { return some(5, letters) + some(3, digits) + some(8, alnum) }

const (
	privateKeys = "private keys"
	tokens      = "tokens that their provider marks"
	settings    = "settings, by name and place"
	connections = "passwords in addresses"
)

// token is a leak in a line of some program's configuration.
func token(provider string, make func() string) leak {
	return leak{tokens, provider, "config.txt", func() string { return "# made for this program\nkey = \"" + make() + "\"\n" }}
}

// marked is a token of a prefix and n characters of a set.
func marked(provider, prefix string, n int, set string) leak {
	return token(provider, func() string { return prefix + some(n, set) })
}

// leaks are the forms. Prefixes and lengths are those that the providers document.
var leaks = slices.Concat([]leak{
	{privateKeys, "PKCS #8", "tls.key", func() string { return pemKey("PRIVATE "+"KEY", 26) }},
	{privateKeys, "PKCS #1", "server.pem", func() string { return pemKey("RSA PRIVATE "+"KEY", 25) }},
	{privateKeys, "elliptic curve", "ec.pem", func() string { return pemKey("EC PRIVATE "+"KEY", 3) }},
	{privateKeys, "OpenSSH", "deploy_key", func() string { return pemKey("OPENSSH PRIVATE "+"KEY", 6) }},
	{privateKeys, "PKCS #8 encrypted", "enc.pem", func() string { return pemKey("ENCRYPTED PRIVATE "+"KEY", 28) }},
	{privateKeys, "PKCS #1 encrypted", "old.pem", func() string {
		return "-----BEGIN RSA PRIVATE " + "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC," + some(32, digits+"ABCDEF") + "\n\n" +
			pemBody(25) + "-----END RSA PRIVATE " + "KEY-----\n"
	}},
	{privateKeys, "PGP", "key.asc", func() string {
		return "-----BEGIN PGP PRIVATE " + "KEY BLOCK-----\n\n" + pemBody(30) + "=" + some(4, base64er) + "\n-----END PGP PRIVATE " + "KEY BLOCK-----\n"
	}},
	{privateKeys, "PGP with a comment", "key2.asc", func() string {
		return "-----BEGIN PGP PRIVATE " + "KEY BLOCK-----\nVersion: GnuPG v2\nComment: of nobody\n\n" + pemBody(30) + "-----END PGP PRIVATE " + "KEY BLOCK-----\n"
	}},
	{privateKeys, "in JSON with newlines as \\n", "account.json", func() string {
		return `{"type": "service_account", "private_key": "` + strings.ReplaceAll(pemKey("PRIVATE "+"KEY", 26), "\n", `\n`) + `"}` + "\n"
	}},
	{privateKeys, "in YAML", "values.yaml", func() string { return "tls:\n  key: |\n" + indented(pemKey("RSA PRIVATE "+"KEY", 25), "    ") }},
	{privateKeys, "in a shell script", "run.sh", func() string { return "#!/bin/sh\ncat >/tmp/k <<END\n" + pemKey("RSA PRIVATE "+"KEY", 25) + "END\n" }},
	{privateKeys, "with CR LF", "windows.pem", func() string { return strings.ReplaceAll(pemKey("PRIVATE "+"KEY", 26), "\n", "\r\n") }},
	{privateKeys, "in base64 as Kubernetes has it", "secret.yaml", func() string {
		return "kind: Secret\ndata:\n  tls.key: " + base64.StdEncoding.EncodeToString([]byte(pemKey("PRIVATE "+"KEY", 26))) + "\n"
	}},
	{privateKeys, "PuTTY", "key.ppk", func() string {
		return "PuTTY-User-Key-File-2: ssh-rsa\r\nEncryption: none\r\nComment: x\r\nPublic-Lines: 1\r\n" + some(64, base64er) +
			"\r\nPrivate-Lines: 2\r\n" + some(64, base64er) + "\r\n" + some(64, base64er) + "\r\nPrivate-MAC: " + some(40, lowHex) + "\r\n"
	}},
	{privateKeys, "age", "keys.txt", func() string { return "AGE-SECRET-" + "KEY-1" + some(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L") + "\n" }},
	{privateKeys, "JSON Web Key", "jwk.json", func() string {
		return `{"kty":"EC","crv":"P-256","x":"` + some(43, urlSafe) + `","y":"` + some(43, urlSafe) + `","d":"` + some(43, urlSafe) + `"}` + "\n"
	}},
	{privateKeys, "WireGuard", "wg0.conf", func() string { return "[Interface]\nAddress = 10.0.0.2/24\nPrivateKey = " + some(43, base64er) + "=\n" }},
	{privateKeys, "PKCS #12 by its name", "store.p12", func() string { return "\x30\x82\x0a\x11\x02\x01\x03" + some(600, base64er) }},
	{privateKeys, "ssh key by its name", ".ssh/id_ed25519", func() string { return some(400, alnum) + "\n" }},
}, []leak{
	token("AWS access key", func() string { return "AKIA" + some(16, capitals+"234567") }),
	token("AWS temporary key", func() string { return "ASIA" + some(16, capitals+"234567") }),
	marked("GitHub personal", "ghp_", 36, alnum), marked("GitHub OAuth", "gho_", 36, alnum), marked("GitHub app", "ghs_", 36, alnum),
	token("GitHub fine-grained", func() string { return "github_pat_" + some(22, alnum) + "_" + some(59, alnum) }),
	marked("GitLab personal", "glpat-", 20, urlSafe), marked("GitLab deploy", "gldt-", 20, urlSafe), marked("GitLab runner", "glrt-", 20, urlSafe),
	marked("GitLab trigger", "glptt-", 40, lowHex), marked("GitLab feed", "glft-", 20, urlSafe), marked("GitLab agent", "glagent-", 50, urlSafe),
	token("Slack bot", func() string { return "xoxb-" + some(12, digits) + "-" + some(12, digits) + "-" + some(24, alnum) }),
	token("Slack user", func() string {
		return "xoxp-" + some(12, digits) + "-" + some(12, digits) + "-" + some(12, digits) + "-" + some(32, lowHex)
	}),
	token("Slack app", func() string {
		return "xapp-1-" + some(11, capitals+digits) + "-" + some(13, digits) + "-" + some(64, lowHex)
	}),
	token("Slack webhook", func() string {
		return "https://hooks.slack.com/services/T" + some(10, capitals+digits) + "/B" + some(10, capitals+digits) + "/" + some(24, alnum)
	}),
	marked("Stripe", "sk_live_", 24, alnum), marked("Stripe restricted", "rk_live_", 24, alnum), marked("Stripe webhook", "whsec_", 32, alnum),
	marked("Google API", "AIza", 35, urlSafe), marked("Google OAuth", "GOCSPX-", 28, urlSafe),
	marked("npm", "npm_", 36, alnum), marked("PyPI", "pypi-AgEIcHlwaS5vcmc", 150, urlSafe), marked("RubyGems", "rubygems_", 48, lowHex),
	token("SendGrid", func() string { return "SG." + some(22, urlSafe) + "." + some(43, urlSafe) }),
	token("OpenAI", func() string { return "sk-proj-" + some(74, urlSafe) + "T3BlbkFJ" + some(74, urlSafe) }),
	token("OpenAI older", func() string { return "sk-" + some(20, alnum) + "T3BlbkFJ" + some(20, alnum) }),
	token("Anthropic", func() string { return "sk-ant-api03-" + some(93, urlSafe) + "AA" }),
	marked("DigitalOcean", "dop_v1_", 64, lowHex), marked("DigitalOcean OAuth", "doo_v1_", 64, lowHex),
	marked("Docker Hub", "dckr_pat_", 27, urlSafe), marked("Hugging Face", "hf_", 34, letters+capitals),
	marked("Vault", "hvs.", 95, urlSafe), marked("Vault batch", "hvb.", 140, urlSafe),
	token("Terraform Cloud", func() string { return some(14, alnum) + ".atlasv1." + some(67, urlSafe) }),
	marked("Shopify", "shpat_", 32, lowHex), marked("Shopify shared secret", "shpss_", 32, lowHex), marked("Shopify custom app", "shpca_", 32, lowHex),
	token("Grafana service account", func() string { return "glsa_" + some(32, alnum) + "_" + some(8, lowHex) }),
	marked("Grafana Cloud", "glc_eyJ", 80, alnum), marked("Databricks", "dapi", 32, lowHex),
	token("Tailscale", func() string { return "tskey-auth-" + some(11, alnum) + "CNTRL-" + some(32, alnum) }),
	marked("Groq", "gsk_", 52, alnum), marked("Sentry user", "sntryu_", 64, lowHex),
	token("JSON Web Token", jwt),
	marked("Linear", "lin_api_", 40, alnum), marked("New Relic", "NRAK-", 27, capitals+digits), marked("Notion", "ntn_", 46, alnum),
	token("Postman", func() string { return "PMAK-" + some(24, lowHex) + "-" + some(34, lowHex) }),
	marked("Pulumi", "pul-", 40, lowHex), marked("Prefect", "pnu_", 36, letters+digits), marked("Doppler", "dp.pt.", 43, alnum),
	marked("PlanetScale", "pscale_tkn_", 43, urlSafe), marked("PlanetScale password", "pscale_pw_", 43, urlSafe),
	token("Atlassian", func() string { return "ATATT3" + some(186, urlSafe) }), marked("Artifactory", "AKCp", 69, alnum),
	token("Square", func() string { return "sq0atp-" + some(22, urlSafe) }), token("Mailgun", func() string { return "key-" + some(32, lowHex) }),
	token("Brevo", func() string { return "xkeysib-" + some(64, lowHex) + "-" + some(16, alnum) }),
	marked("Fly.io", "fo1_", 43, urlSafe), marked("Dynatrace", "dt0c01."+"ABCDEFGHIJKLMNOPQRSTUVWX.", 64, capitals+digits),
	marked("Perplexity", "pplx-", 48, alnum), marked("SonarQube", "sqp_", 40, lowHex), marked("Sourcegraph", "sgp_", 40, lowHex),
	marked("OpenShift", "sha256~", 43, urlSafe), marked("Replicate", "r8_", 37, alnum), marked("Netlify", "nfp_", 36, alnum),
	marked("Buildkite", "bkua_", 40, lowHex), marked("CircleCI", "CCIPAT_", 60, alnum+"_"), token("Cloudflare origin CA", func() string { return "v1.0-" + some(24, lowHex) + "-" + some(146, lowHex) }),
	marked("Figma", "figd_", 40, urlSafe), token("Airtable", func() string { return "pat" + some(14, alnum) + "." + some(64, lowHex) }), marked("Supabase", "sbp_", 40, lowHex),
	token("Discord webhook", func() string { return "https://discord.com/api/webhooks/" + some(18, digits) + "/" + some(68, urlSafe) }),
	token("Telegram bot", func() string { return some(10, digits) + ":AA" + some(33, urlSafe) }),
	token("Azure client secret", func() string { return some(3, alnum) + "8Q~" + some(34, alnum) }),
	token("Azure storage key", func() string {
		return "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=" + some(86, base64er) + "=="
	}),
	token("Twilio", func() string { return "SK" + some(32, lowHex) }),
}, []leak{
	{settings, ".env", ".env", func() string { return "PORT=8000\nDB_PASSWORD=" + password() + "\n" }},
	{settings, ".env.production", ".env.production", func() string { return "API_KEY=\"" + some(32, lowHex) + "\"\n" }},
	{settings, "Compose's environment", "compose.yaml", func() string {
		return "services:\n  db:\n    image: postgres\n    environment:\n      POSTGRES_PASSWORD: " + password() + "\n"
	}},
	{settings, "Compose's environment as a list", "docker-compose.yml", func() string {
		return "services:\n  db:\n    environment:\n      - POSTGRES_PASSWORD=" + password() + "\n"
	}},
	{settings, "application.properties", "application.properties", func() string { return "spring.datasource.password=" + password() + "\n" }},
	{settings, "application.yml", "application.yml", func() string { return "spring:\n  datasource:\n    password: " + password() + "\n" }},
	{settings, "appsettings.json", "appsettings.json", func() string {
		return "{\n  \"ConnectionStrings\": {\n    \"Db\": \"Server=db;User Id=sa;Password=" + password() + "\"\n  }\n}\n"
	}},
	{settings, "wp-config.php", "wp-config.php", func() string { return "<?php\ndefine( 'DB_PASSWORD', '" + password() + "' );\n" }},
	{settings, "Django's settings.py", "settings.py", func() string { return "DEBUG = False\nSECRET_KEY = '" + some(50, alnum+"!@#^&*") + "'\n" }},
	{settings, "Rails' database.yml", "config/database.yml", func() string { return "production:\n  adapter: postgresql\n  password: " + password() + "\n" }},
	{settings, "Rails' master.key", "config/master.key", func() string { return some(32, lowHex) }},
	{settings, ".pgpass", ".pgpass", func() string { return "db.example.com:5432:app:app:" + password() + "\n" }},
	{settings, ".my.cnf", ".my.cnf", func() string { return "[client]\nuser=root\npassword=" + password() + "\n" }},
	{settings, ".netrc", ".netrc", func() string { return "machine api.example.com login me password " + password() + "\n" }},
	{settings, ".npmrc", ".npmrc", func() string { return "//registry.npmjs.org/:_authToken=" + some(36, lowHex) + "\n" }},
	{settings, ".pypirc", ".pypirc", func() string { return "[pypi]\nusername = me\npassword = " + password() + "\n" }},
	{settings, ".git-credentials", ".git-credentials", func() string { return "https://me:" + password() + "@git.example.com\n" }},
	{settings, "Docker's config.json", ".docker/config.json", func() string {
		return `{"auths":{"registry.example.com":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("me:"+password())) + `"}}}`
	}},
	{settings, ".dockercfg", ".dockercfg", func() string {
		return `{"registry.example.com":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("me:"+password())) + `","email":"x"}}`
	}},
	{settings, "AWS' credentials", ".aws/credentials", func() string { return "[default]\naws_secret_access_key = " + some(40, base64er) + "\n" }},
	{settings, "kubeconfig with a token", ".kube/config", func() string {
		return "apiVersion: v1\nkind: Config\nusers:\n- name: me\n  user:\n    token: " + some(40, alnum) + "\n"
	}},
	{settings, "kubeconfig with a key", "kubeconfig", func() string {
		return "apiVersion: v1\nkind: Config\nusers:\n- name: me\n  user:\n    client-key-data: " + base64.StdEncoding.EncodeToString([]byte(pemKey("RSA PRIVATE "+"KEY", 25))) + "\n"
	}},
	{settings, "terraform.tfvars", "terraform.tfvars", func() string { return "region = \"eu\"\ndb_password = \"" + password() + "\"\n" }},
	{settings, "terraform.tfstate", "terraform.tfstate", func() string {
		return "{\n  \"version\": 4,\n  \"resources\": [{\"instances\": [{\"attributes\": {\n    \"password\": \"" + password() + "\"\n  }}]}]\n}\n"
	}},
	{settings, "GitHub's hosts.yml", ".config/gh/hosts.yml", func() string { return "github.com:\n    oauth_token: gho_" + some(36, alnum) + "\n" }},
	{settings, "gradle.properties", ".gradle/gradle.properties", func() string { return "repoUser=me\nrepo.password=" + password() + "\n" }},
	{settings, "Maven's settings.xml", ".m2/settings.xml", func() string {
		return "<settings><servers><server>\n<id>x</id>\n<password>" + password() + "</password>\n</server></servers></settings>\n"
	}},
	{settings, "Composer's auth.json", "auth.json", func() string {
		return "{\n  \"http-basic\": {\n    \"repo.example.com\": {\n      \"username\": \"me\",\n      \"password\": \"" + password() + "\"\n    }\n  }\n}\n"
	}},
	{settings, ".vault-token", ".vault-token", func() string { return "s." + some(24, alnum) }},
	{settings, ".s3cfg", ".s3cfg", func() string { return "[default]\nsecret_key = " + some(40, base64er) + "\n" }},
	{settings, "rclone.conf", ".config/rclone/rclone.conf", func() string { return "[s3]\ntype = s3\nsecret_access_key = " + some(40, base64er) + "\n" }},
	{settings, "redis.conf", "redis.conf", func() string { return "port 6379\nrequirepass " + password() + "\n" }},
	{settings, "a script that exports", "run.sh", func() string {
		return "#!/bin/sh\nexport AWS_SECRET_ACCESS_KEY=" + some(40, base64er) + "\nexec /app\n"
	}},
}, []leak{
	{connections, "PostgreSQL", "app.conf", func() string { return "dsn = postgres://app:" + password() + "@db:5432/app\n" }},
	{connections, "MongoDB", "settings.json", func() string { return `{"db": "mongodb+srv://app:` + password() + `@cluster0.example.net/app"}` + "\n" }},
	{connections, "Redis", "worker.py", func() string { return "BROKER = 'redis://:" + password() + "@cache:6379/0'\n" }},
	{connections, "AMQP", "queue.toml", func() string { return "url = \"amqp://app:" + password() + "@mq:5672/\"\n" }},
	{connections, "HTTP", "sources.list", func() string { return "deb https://me:" + password() + "@repo.example.com/debian stable main\n" }},
	{connections, "pip's index", "pip.conf", func() string { return "[global]\nindex-url = https://me:" + password() + "@pypi.example.com/simple\n" }},
})

// harmless are files that look like secrets and are none.
var harmless = []leak{
	{"", "certificate", "ca.pem", func() string { return pemKey("CERTIFICATE", 20) }},
	{"", "public key", "key.pub.pem", func() string { return pemKey("PUBLIC KEY", 6) }},
	{"", "PGP public key", "release.asc", func() string { return pemKey("PGP PUBLIC KEY BLOCK", 30) }},
	{"", "ssh public key", ".ssh/id_ed25519.pub", func() string { return "ssh-ed25519 " + some(68, base64er) + " me@host\n" }},
	{"", "header of a key, in documentation", "README.md", func() string {
		return "Paste it: `-----BEGIN PRIVATE " + "KEY-----` … `-----END PRIVATE " + "KEY-----`\n"
	}},
	{"", "header of a key, in a program", "pem.go", func() string { return "package x\n\nconst header = \"-----BEGIN RSA PRIVATE " + "KEY-----\"\n" }},
	{"", "key that is elided", "doc.txt", func() string {
		return "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEpAIBAAKCAQEA...\n-----END RSA PRIVATE " + "KEY-----\n"
	}},
	{"", "Amazon's example", "aws.md", func() string { return "aws_access_key_id = AKIA" + "IOSFODNN7EXAMPLE\n" }},
	{"", "token of x, in documentation", "gh.md", func() string { return "export GITHUB_TOKEN=ghp_" + strings.Repeat("x", 36) + "\n" }},
	{"", "token of zeros", "gl.md", func() string { return "token: glpat-" + strings.Repeat("0", 20) + "\n" }},
	{"", "Stripe's key that may be published", "pay.js", func() string { return "Stripe('pk_live_" + some(24, alnum) + "');\n" }},
	{"", "settings without a secret", ".env", func() string { return "PORT=8000\nTOKEN_TTL=60\nPASSWORD_FILE=/run/secrets/db\n" }},
	{"", "settings that name variables", ".env.production", func() string { return "DB_PASSWORD=${DB_PASSWORD}\nAPI_KEY=$API_KEY\n" }},
	{"", "settings of an example", ".env.example", func() string { return "DB_PASSWORD=hunter2\nAPI_KEY=" + some(32, lowHex) + "\n" }},
	{"", "settings to be filled in", "application.yml", func() string { return "spring:\n  datasource:\n    password: changeme\n    other: <password>\n" }},
	{"", "Compose with secrets as files", "compose.yaml", func() string {
		return "services:\n  db:\n    environment:\n      POSTGRES_PASSWORD_FILE: /run/secrets/db\n      PGPASSWORD: ${PGPASSWORD}\n    secrets: [db]\nsecrets:\n  db:\n    file: ./db.txt\n"
	}},
	{"", "locale called id_ID", "id_ID", func() string { return "LC_IDENTIFICATION\ntitle \"Indonesian locale\"\n" }},
	{"", "checksums", "SHA256SUMS", func() string {
		return some(64, lowHex) + "  a.tar.gz\n" + some(64, lowHex) + "  b.tar.gz\n" + some(40, lowHex) + "  c\n"
	}},
	{"", "lock file with hashes", "package-lock.json", func() string { return "{\n  \"integrity\": \"sha512-" + some(86, base64er) + "==\"\n}\n" }},
	{"", "go.sum", "go.sum", func() string { return "example.com/x v1.0.0 h1:" + some(43, base64er) + "=\n" }},
	{"", "UUID", "machine.conf", func() string {
		return "id = " + some(8, lowHex) + "-" + some(4, lowHex) + "-4" + some(3, lowHex) + "-a" + some(3, lowHex) + "-" + some(12, lowHex) + "\n"
	}},
	{"", "picture in a stylesheet", "style.css", func() string { return "a{background:url(data:image/png;base64," + some(400, base64er) + "==)}\n" }},
	{"", "source map", "app.css", func() string {
		return "/*# sourceMappingURL=data:application/json;base64," + base64.StdEncoding.EncodeToString([]byte(`{"version":3,"sources":["`+some(60, letters)+`"],"mappings":"AAAA"}`)) + " */\n"
	}},
	{"", "words that begin as tokens do", "names.py", func() string {
		return "hf_hub_download_and_load_the_model_from_hub = 1\nnpm_config_registry = 2\ndapi = 'api'\ngsk_value = 3\nsk_test_fixture = 4\n"
	}},
	{"", "address without a password", "db.conf", func() string { return "dsn = postgres://app@db:5432/app\nother = http://user@example.com/\n" }},
	{"", "address with a variable", "db2.conf", func() string {
		return "dsn = postgres://app:${DB_PASSWORD}@db/app\nb = redis://:$REDIS_PASSWORD@cache/0\nc = http://me:{{ password }}@x/\n"
	}},
	{"", "address of an example", "guide.md", func() string {
		return "Use `postgres://user:password@host:5432/dbname` or `https://<user>:<password>@host/`.\n"
	}},
	{"", "time and place with @", "log.txt", func() string { return "http://example.com:80/a?b=c:d@e 12:30:00@home mail:me@example.com\n" }},
	{"", "password policy", "policy.yaml", func() string {
		return "password_policy: strict\npassword_min_length: 12\ntoken_ttl: 3600\nsecret_name: db\n"
	}},
	{"", "account without a password", "shadow", func() string { return "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nme:!:19000::::::\n" }},
	{"", "code that asks for a password", "login.py", func() string {
		return "password = getpass.getpass('Password: ')\ntoken = os.environ['TOKEN']\nsecret = None\n"
	}},
	{"", "Docker's config.json without a login", ".docker/config.json", func() string { return `{"credsStore": "desktop", "auths": {"https://index.docker.io/v1/": {}}}` }},
	{"", ".npmrc without a login", ".npmrc", func() string { return "fund=false\nregistry=https://registry.example.com/\n" }},
	{"", ".npmrc with a variable", "home/.npmrc", func() string { return "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\n" }},
	{"", "kubeconfig without a login", ".kube/config", func() string {
		return "apiVersion: v1\nkind: Config\nclusters:\n- cluster: {server: https://k8s.example.com, certificate-authority-data: " + some(400, base64er) + "}\nusers:\n- name: me\n  user: {exec: {command: aws}}\n"
	}},
	{"", "Maven's settings.xml with a variable", ".m2/settings.xml", func() string { return "<settings><server><password>${env.PASSWORD}</password></server></settings>\n" }},
	{"", "redis.conf without a password", "redis.conf", func() string { return "# requirepass foobared\nport 6379\n" }},
}

// samples is how many files of each form there are: chance decides what they hold.
const samples = 5

// grow writes the files of the forms below dir: a folder for each form, and one in it for each file.
func grow(t *testing.T, dir string, forms []leak) {
	t.Helper()
	for i, l := range forms {
		for n := range samples {
			write(t, filepath.Join(dir, fmt.Sprintf("%03d", i), fmt.Sprint(n), l.path), l.content())
		}
	}
}

// flagged counts, for each form, the files that a scanner names.
func flagged(dir string, forms []leak, named []string) []int {
	counts := make([]int, len(forms))
	for i := range forms {
		for n := range samples {
			prefix := filepath.Join(dir, fmt.Sprintf("%03d", i), fmt.Sprint(n)) + "/"
			if slices.ContainsFunc(named, func(name string) bool { return strings.HasPrefix(name, prefix) }) {
				counts[i]++
			}
		}
	}
	return counts
}

// A scanner returns the files below dir in which it finds a secret.
type scanner struct {
	tool tool
	scan func(t *testing.T, dir string) []string
}

const gitleaks tool = "gitleaks"

func scanners(t *testing.T) []scanner {
	t.Helper()
	binary := buildImagelab(t)
	all := []scanner{{ours, func(t *testing.T, dir string) (named []string) {
		// A report names a hundred files at most, so each form has a report of its own.
		folders, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, folder := range folders {
			root := filepath.Join(dir, folder.Name())
			stdout, stderr, err := execute(t, exec.Command(binary, "--audit", "--root", root, "--only", "secrets-in-files", "--format", "json"))
			var r struct{ Checks []struct{ Affected []string } }
			if json.Unmarshal([]byte(stdout), &r) != nil || len(r.Checks) != 1 {
				t.Fatalf("--audit --root %s: %v, %s", root, err, stderr)
			}
			for _, name := range r.Checks[0].Affected {
				named = append(named, root+name)
			}
		}
		return named
	}}}
	if hasPeer(gitleaks) {
		all = append(all, scanner{gitleaks, func(t *testing.T, dir string) (named []string) {
			var found []struct{ File string }
			report := peer(t, "gitleaks", "dir", "--no-banner", "--exit-code", "0", "--report-format", "json", "--report-path", "-", dir)
			if err := json.Unmarshal([]byte(report), &found); err != nil {
				t.Fatalf("gitleaks: %v\n%s", err, report)
			}
			for _, f := range found {
				named = append(named, f.File)
			}
			return named
		}})
	}
	return all
}

// missedForms are what --audit does not find, and why it may not.
var missedForms = map[string]string{
	"Mailgun":  "key- and 32 hexadecimal digits are as often the name of something in a cache",
	"Airtable": "pat and fourteen characters are words of many programs",
}

// TestSecretsInFilesOfEachForm plants secrets of each form, and files that only look so. With peers it counts what they
// find, and writes both tables of docs/audit-peers.md.
func TestSecretsInFilesOfEachForm(t *testing.T) {
	t.Parallel()
	planted, clean := t.TempDir(), t.TempDir()
	grow(t, planted, leaks)
	grow(t, clean, harmless)
	var columns []tool
	found, wrong := map[tool][]int{}, map[tool][]int{}
	for _, s := range scanners(t) {
		columns = append(columns, s.tool)
		found[s.tool] = flagged(planted, leaks, s.scan(t, planted))
		wrong[s.tool] = flagged(clean, harmless, s.scan(t, clean))
	}
	for i, l := range leaks {
		_, mayMiss := missedForms[l.form]
		if n := found[ours][i]; (n == samples) == mayMiss {
			t.Errorf("%s, %s: found in %d of %d files, want all: %t", l.group, l.form, n, samples, !mayMiss)
		}
	}
	for i, l := range harmless {
		if n := wrong[ours][i]; n > 0 {
			t.Errorf("%s: flagged in %d of %d files, want none", l.form, n, samples)
		}
	}
	text := leakTable(columns, found, wrong)
	if *peersDir != "" {
		replaceBetween(t, peersPage, "secrets", text)
		return
	}
	page := readTable(t, peersPage, "secrets")
	for name, row := range parseTable(t, text) {
		if got, want := row[ours], page[name][ours]; got != want {
			t.Errorf("%s: %s finds %s, by docs/audit-peers.md %s: scripts/audit-peers.sh renews it", name, ours, got, want)
		}
	}
}

// leakTable is the table with a row for each group, and below it what each tool has missed or flagged wrongly.
func leakTable(columns []tool, found, wrong map[tool][]int) string {
	var b strings.Builder
	b.WriteString("| files with | number |")
	for _, which := range columns {
		fmt.Fprintf(&b, " %s |", which)
	}
	b.WriteString("\n|---|---:|" + strings.Repeat("---:|", len(columns)) + "\n")
	row := func(name string, forms []leak, counts map[tool][]int, belongs func(leak) bool) {
		total, sums := 0, map[tool]int{}
		for i, l := range forms {
			if !belongs(l) {
				continue
			}
			total += samples
			for _, which := range columns {
				sums[which] += counts[which][i]
			}
		}
		fmt.Fprintf(&b, "| %s | %d |", name, total)
		for _, which := range columns {
			fmt.Fprintf(&b, " %d |", sums[which])
		}
		b.WriteString("\n")
	}
	for _, group := range []string{privateKeys, tokens, settings, connections} {
		row(group, leaks, found, func(l leak) bool { return l.group == group })
	}
	row("nothing secret", harmless, wrong, func(leak) bool { return true })
	for _, which := range columns {
		list := func(sentence string, forms []leak, counted func(i int) bool) {
			var groups []string
			names := map[string][]string{}
			for i, l := range forms {
				if counted(i) && !slices.Contains(groups, l.group) {
					groups = append(groups, l.group)
				}
				if counted(i) {
					names[l.group] = append(names[l.group], l.form)
				}
			}
			for i, group := range groups {
				groups[i] = strings.TrimPrefix(group+": ", ": ") + strings.Join(names[group], ", ")
			}
			if len(groups) > 0 {
				b.WriteString("\n" + wrapped(fmt.Sprintf("%s %s: %s.", which, sentence, strings.Join(groups, "; "))))
			}
		}
		list("does not find, or not always", leaks, func(i int) bool { return found[which][i] < samples })
		list("flags, though nothing secret is in it", harmless, func(i int) bool { return wrong[which][i] > 0 })
	}
	return b.String()
}

// wrapped is the text in lines as the pages have them.
func wrapped(text string) string {
	const width = 120
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column > 0 && column+1+len(word) > width:
			b.WriteString("\n")
			column = 0
		case column > 0:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String() + "\n"
}
