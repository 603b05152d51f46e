//go:build !shutdown

package main

import "net/http"

func serve(addr string) error { return http.ListenAndServe(addr, nil) }
