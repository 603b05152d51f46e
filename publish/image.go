package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// layoutFolder holds the image in the folder of a release.
const layoutFolder = "image"

// authorities are the certificates that a TLS client in the image trusts, in PEM: Mozilla's,
// of the module's version that go.sum has, and not of the machine that builds. One that is
// trusted with a condition is left out, as PEM cannot say the condition.
func authorities() []byte {
	var all bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			// A bytes.Buffer takes everything.
			_ = pem.Encode(&all, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return all.Bytes()
}

// layers are those of Dockerfile.scratch, one for each of its COPYs.
func layers(binary []byte) []struct {
	by      string
	entries []entry
} {
	return []struct {
		by      string
		entries []entry
	}{
		{"authorities, users and /tmp", []entry{
			{name: "etc/", mode: 0o755},
			{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\nimagelab:x:65532:\n")},
			{name: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/:/sbin/nologin\nimagelab:x:65532:65532:imagelab:/:/sbin/nologin\n")},
			{name: "etc/ssl/", mode: 0o755},
			{name: "etc/ssl/certs/", mode: 0o755},
			{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: authorities()},
			{name: "tmp/", mode: 0o1777},
		}},
		{"the binary", []entry{{name: "imagelab", mode: 0o755, content: binary}}},
	}
}

// image is what Dockerfile.scratch makes, without a Docker: the same files and the same
// configuration, and all times are the release's.
func (r release) image(p v1.Platform, binary []byte) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	var adds []mutate.Addendum
	for _, l := range layers(binary) {
		packed, err := pack(l.entries, r.created)
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(
			func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil },
			tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9))
		if err != nil {
			return nil, fmt.Errorf("layer of %s: %w", l.by, err)
		}
		adds = append(adds, mutate.Addendum{
			Layer:     layer,
			MediaType: types.OCILayer,
			History:   v1.History{Created: v1.Time{Time: r.created}, CreatedBy: l.by},
		})
	}
	image, err := mutate.Append(image, adds...)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	config.Created = v1.Time{Time: r.created}
	config.Config = r.config()
	return mutate.ConfigFile(image, config)
}

// config is the image's: a test compares it with that of Dockerfile.scratch.
func (r release) config() v1.Config {
	return v1.Config{
		User:         "65532:65532",
		ExposedPorts: map[string]struct{}{"8000/tcp": {}, "9000/tcp": {}},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"ROCKET_SIZE=Medium", "IMAGELAB_VARIANT=scratch"},
		Entrypoint: []string{"/imagelab"},
		WorkingDir: "/",
		StopSignal: "SIGTERM",
		Healthcheck: &v1.HealthConfig{
			Test:     []string{"CMD", "/imagelab", "--healthcheck"},
			Interval: 5 * time.Second, Timeout: 3 * time.Second, StartPeriod: 5 * time.Second, Retries: 3,
		},
		Labels: map[string]string{
			"org.opencontainers.image.title":         "imagelab",
			"org.opencontainers.image.description":   description,
			"org.opencontainers.image.licenses":      "MIT",
			"org.opencontainers.image.source":        r.source,
			"org.opencontainers.image.documentation": r.documentation,
			"org.opencontainers.image.version":       r.version,
			"org.opencontainers.image.revision":      r.commit,
			"org.lab.login":                          "unknown",
			"org.lab.token":                          "unknown",
		},
	}
}

const description = "One static binary that makes a FROM scratch image fit for production, and proves it"

// platformImage is the image of one platform.
type platformImage struct {
	v1.Platform
	v1.Image
}

// index is the image of all platforms, from which an engine takes its own.
func (r release) index(images []platformImage) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, i := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        i.Image,
			Descriptor: v1.Descriptor{MediaType: types.OCIManifestSchema1, Platform: &i.Platform},
		})
	}
	return index
}

// push sends the image that a release has made in folder to a registry. Who may do so is
// what docker login has written down. A registry on localhost is asked by plain HTTP.
func push(folder, image string, stdout io.Writer) error {
	ref, err := name.ParseReference(image)
	if err != nil {
		return fmt.Errorf("IMAGE=%s: %w: want name:tag, such as registry.example.com/imagelab:v0.1.0", image, err)
	}
	path, err := layout.FromPath(filepath.Join(folder, layoutFolder))
	if err != nil {
		return fmt.Errorf("%s holds no release: %w", folder, err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(ref, index, remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push %s: %w", image, err)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n", ref.Context().Digest(digest.String()))
	return err
}
