package main

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"slices"
	"strings"
)

// reflectMethods reads what the linker prints for -dumpdep, a line "A -> B" for each
// symbol B when it first turns out to be needed, and returns a chain for each symbol
// with the mark ReflectMethod: that symbol, then what needs it, and so on up to the
// first one of this project. The shortest chain is first; those of reflect are last.
func reflectMethods(r io.Reader) ([]string, error) {
	neededBy := make(map[string]string)
	marked := make(map[string]bool)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // types without a name are spelled out
	for lines.Scan() {
		from, to, ok := strings.Cut(lines.Text(), " -> ")
		if !ok {
			continue
		}
		from, _ = unmark(from)
		to, mark := unmark(to)
		neededBy[to] = from
		if mark {
			marked[to] = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	// Silence must not look like a pass.
	if _, ok := neededBy["main.main"]; !ok {
		return nil, errors.New("not what the linker prints for -dumpdep: nothing needs main.main")
	}

	var chains [][]string
	for symbol := range marked {
		chain := []string{symbol}
		for !ours(symbol) && neededBy[symbol] != "" && neededBy[symbol] != "_" && !slices.Contains(chain, neededBy[symbol]) {
			symbol = neededBy[symbol]
			chain = append(chain, symbol)
		}
		chains = append(chains, chain)
	}
	// One lookup makes those in reflect needed too, so they are seldom to blame.
	inReflect := func(chain []string) int { return len(chain[0]) - len(strings.TrimPrefix(chain[0], "reflect.")) }
	slices.SortFunc(chains, func(a, b []string) int {
		return cmp.Or(cmp.Compare(inReflect(a), inReflect(b)), cmp.Compare(len(a), len(b)), slices.Compare(a, b))
	})
	var texts []string
	for _, chain := range chains {
		texts = append(texts, strings.Join(chain, " <- "))
	}
	return texts, nil
}

// unmark separates a symbol from its marks, as in "A <UsedInIface><ReflectMethod>".
func unmark(s string) (symbol string, reflectMethod bool) {
	for {
		switch {
		case strings.HasSuffix(s, "<ReflectMethod>"):
			s, reflectMethod = strings.TrimSuffix(s, "<ReflectMethod>"), true
		case strings.HasSuffix(s, "<UsedInIface>"):
			s = strings.TrimSuffix(s, "<UsedInIface>")
		default:
			return strings.TrimSuffix(s, " "), reflectMethod
		}
	}
}

func ours(symbol string) bool {
	return strings.HasPrefix(symbol, "main.") || strings.HasPrefix(symbol, "imagelab/")
}
