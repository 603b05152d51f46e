// The floor of the measurements: a net/http server with one handler and nothing
// else. Its one argument is the address to listen on.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"status":"ok"}`+"\n")
	})
	if err := serve(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}
