package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseWith(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]*subject{
		"mine=registry:5000/mine:1.2@8080/ready": {name: "mine", image: "registry:5000/mine:1.2", port: 8080, path: "/ready"},
		"mine=mine@sha256:00@80":                 {name: "mine", image: "mine@sha256:00", port: 80, path: "/"},
		"mine=/bin/mine --fast@8080/a/b?c=d":     {name: "mine", command: []string{"/bin/mine", "--fast"}, port: 8080, path: "/a/b?c=d"},
	} {
		if got, err := parseWith(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"mine":           "want name=image:tag@port/path",
		"=image@80/":     "want name=image:tag@port/path",
		"mine=image":     "want name=image:tag@port/path",
		"mine=@80/":      "want name=image:tag@port/path",
		"mine=image@/":   `port "": want 1 to 65535`,
		"mine=image@0/":  `port "0": want 1 to 65535`,
		"mine=image@x/y": `port "x": want 1 to 65535`,
	} {
		if got, err := parseWith(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want an error with %s", in, got, err, want)
		}
	}
}
