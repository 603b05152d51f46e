package main

import "slices"

// The subjects of what the sandbox costs: the same program with IMAGELAB_SANDBOX=require and off.
const (
	isConfined  = "confined"
	notConfined = "not confined"
)

// sandboxed is imagelab under another name, with that mode of its sandbox.
func sandboxed(imagelab *subject, name, mode string) *subject {
	s := *imagelab
	s.name, s.env = name, append(slices.Clone(s.env), "IMAGELAB_SANDBOX="+mode)
	return &s
}

// sandboxRound starts and loads imagelab with and without its sandbox, in turn.
func (b *bench) sandboxRound() error {
	imagelab := b.servers[1]
	subjects := []*subject{sandboxed(imagelab, isConfined, "require"), sandboxed(imagelab, notConfined, "off")}
	took := map[string][]float64{}
	for range starts {
		for _, s := range subjects {
			in, err := b.start(s)
			if err != nil {
				return err
			}
			took[s.name] = append(took[s.name], in.ready)
			in.kill()
		}
	}
	var running []*instance
	defer func() {
		for _, in := range running {
			in.kill()
		}
	}()
	for _, s := range subjects {
		in, err := b.start(s)
		if err != nil {
			return err
		}
		running = append(running, in)
	}
	settle()
	rates := map[string][]float64{}
	for range loads {
		for _, in := range running {
			f, err := b.saturate(in.url, 32, b.seconds/2)
			if err != nil {
				return err
			}
			rates[in.name] = append(rates[in.name], f.rate())
		}
	}
	for _, s := range subjects {
		b.add("sandbox-exec-to-200", s.name, median(took[s.name]))
		b.add("sandbox-rps", s.name, median(rates[s.name]))
	}
	return nil
}
