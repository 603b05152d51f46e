package e2e

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestSARIFHoldsItsSchema validates what a real container gives against the schema
// of SARIF 2.1.0, errata 01, as OASIS publishes it.
func TestSARIFHoldsItsSchema(t *testing.T) {
	t.Parallel()
	needEngine(t)
	file, err := os.Open(filepath.Join("testdata", "sarif-2.1.0.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	doc, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("sarif.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("sarif.json")
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := try(t, "run", "--rm", "--label", label(), "--entrypoint", "/imagelab", "imagelab:alpine", "--audit", "--format", "sarif")
	log, err := jsonschema.UnmarshalJSON(strings.NewReader(stdout))
	if err != nil || code != 1 {
		t.Fatalf("--audit --format sarif = %d, %v\n%s", code, err, stderr)
	}
	if err := schema.Validate(log); err != nil {
		t.Error(err)
	}
	broken := strings.Replace(stdout, `"2.1.0"`, `"2.0.0"`, 1)
	if log, err = jsonschema.UnmarshalJSON(strings.NewReader(broken)); err != nil || schema.Validate(log) == nil {
		t.Errorf("the schema takes another version, %v: it cannot fail", err)
	}
}

// TestJUnitOfARealContainer is well formed and has the failures that the JSON has.
func TestJUnitOfARealContainer(t *testing.T) {
	t.Parallel()
	needEngine(t)
	run := func(format string) string {
		stdout, _, _ := try(t, "run", "--rm", "--label", label(), "--entrypoint", "/imagelab", "imagelab:alpine", "--audit", "--format", format)
		return stdout
	}
	var r report
	if err := json.Unmarshal([]byte(run("json")), &r); err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Suites []struct {
			Failures int `xml:"failures,attr"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(run("junit")), &suites); err != nil {
		t.Fatal(err)
	}
	failures := 0
	for _, s := range suites.Suites {
		failures += s.Failures
	}
	if failures == 0 || failures != r.Summary["fail"] {
		t.Errorf("%d failures in JUnit, %d in JSON", failures, r.Summary["fail"])
	}
}
