package main

import (
	"cmp"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
	"slices"
	"strings"
)

// figures are the bytes of one build.
type figures struct {
	toolchain string           // as in "go1.26.8 linux/amd64"
	binary    int64            // the file
	images    map[string]int64 // by the variant's name, less the base image
	parts     map[string]int64 // by package, or by "(what it is)"; their sum is binary
}

// Parts that belong to no package.
const (
	headers  = "(headers and padding)"
	assembly = "(assembly without a package)"
	made     = "(made by the compiler)" // hash and equality functions, wrappers of methods
	itabs    = "(tables of methods)"
	numbers  = "(floating-point constants)"
)

// regions are symbols without a size that stand at the head of many smaller things,
// which have no symbols of their own.
var regions = map[string]string{
	"type:*":           "(type descriptors)",
	"go:string.*":      "(strings)",
	"runtime.gcbits.*": "(pointer bitmaps)",
}

// sections are named after what is in them where their own name does not tell.
var sections = map[string]string{
	".gopclntab": "(pclntab: lines, names and unwinding of functions)",
}

// weigh counts the bytes of the product by what the symbols of another build of the
// same code say.
func weigh(product, symbols string) (*figures, error) {
	f := &figures{parts: make(map[string]int64)}
	info, err := buildinfo.ReadFile(product)
	if err != nil {
		return nil, err
	}
	setting := make(map[string]string)
	for _, s := range info.Settings {
		setting[s.Key] = s.Value
	}
	f.toolchain = fmt.Sprintf("%s %s/%s", info.GoVersion, setting["GOOS"], setting["GOARCH"])

	stat, err := os.Stat(product)
	if err != nil {
		return nil, err
	}
	f.binary = stat.Size()

	bare, err := elf.Open(product)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", product, err)
	}
	defer bare.Close()
	full, err := elf.Open(symbols)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", symbols, err)
	}
	defer full.Close()
	names, err := full.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", symbols, err)
	}

	rest := f.binary
	for _, s := range bare.Sections {
		if s.Type == elf.SHT_NOBITS || s.Type == elf.SHT_NULL {
			continue // memory, or nothing
		}
		rest -= int64(s.FileSize)
		switch s.Name {
		case ".text", ".rodata", ".data", ".noptrdata":
			same := full.Section(s.Name)
			if same == nil || same.Size != s.Size {
				return nil, fmt.Errorf("%s and %s are not builds of the same code: %s differs", product, symbols, s.Name)
			}
			f.section(same, within(full, names, same))
		default:
			f.parts[cmp.Or(sections[s.Name], "("+s.Name+")")] += int64(s.FileSize)
		}
	}
	f.parts[headers] += rest
	return f, nil
}

// within returns the symbols of a section by their address.
func within(file *elf.File, symbols []elf.Symbol, s *elf.Section) []elf.Symbol {
	var in []elf.Symbol
	for _, sym := range symbols {
		if int(sym.Section) < len(file.Sections) && file.Sections[sym.Section] == s {
			in = append(in, sym)
		}
	}
	slices.SortStableFunc(in, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	return in
}

// section counts each byte of a section once: for the symbol that covers it, else
// for the region that it is in, else for the section.
func (f *figures) section(s *elf.Section, symbols []elf.Symbol) {
	rest := "(" + s.Name + " without a symbol)"
	at, end, gap := s.Addr, s.Addr+s.Size, rest
	for _, sym := range symbols {
		if sym.Value > at {
			f.parts[gap] += int64(sym.Value - at)
			at = sym.Value
		}
		if region, ok := regions[sym.Name]; ok {
			gap = region
		} else if strings.HasPrefix(sym.Name, "go:") || sym.Size > 0 {
			gap = rest
		}
		if to := min(sym.Value+sym.Size, end); to > at {
			f.parts[partOf(sym.Name)] += int64(to - at)
			at = to
		}
	}
	f.parts[gap] += int64(end - at)
}

// partOf returns the package of a symbol, or what it is if it has none.
func partOf(symbol string) string {
	switch {
	case strings.HasPrefix(symbol, "go:itab."):
		return itabs
	case strings.HasPrefix(symbol, "go:"), strings.HasPrefix(symbol, "type:"):
		return made
	case strings.HasPrefix(symbol, "$f"):
		return numbers
	}
	// Before the receiver and the type arguments, which have paths of their own.
	path := symbol
	if i := strings.IndexAny(path, "(["); i >= 0 {
		path = path[:i]
	}
	slash := strings.LastIndex(path, "/") + 1
	dot := strings.Index(path[slash:], ".")
	if dot < 0 {
		return assembly
	}
	// The linker's escape for dots in the last element of a path.
	return strings.ReplaceAll(path[:slash+dot], "%2e", ".")
}
