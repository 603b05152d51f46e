package early

// Begin returns the probe of url, begun as Take would return it, or nil.
func Begin(url string) *Probe {
	p := parse(url)
	if p == nil || !p.send() {
		return nil
	}
	return p.take()
}
