package probe_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"imagelab/internal/probe"
)

func ExampleTarget_Probe() {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	target, err := probe.Parse(srv.URL + "/health")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, status := range []probe.StatusRange{{}, {Low: 404, High: 404}} {
		detail, err := target.Probe(context.Background(), probe.Options{Status: status})
		fmt.Println(detail, err != nil)
	}
	// Output:
	//  true
	// 404 false
}
