// The floor of the probes: a Go program that does nothing.
package main

func main() {}
