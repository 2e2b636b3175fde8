package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go/importer"
)

// pureFiles decide and encode. They must give the same result wherever and whenever they run: no clock, no I/O, no
// goroutine or channel, no package variable, no order of a map, no printing.
func pureFiles() []string {
	return []string{"state.go", "event.go", "engine.go", "engine_rules.go", "engine_place.go", "lease.go", "liveness.go", "agent.go",
		"timers.go", "config.go", "status.go", "simulate.go", "wire.go", "arp.go"}
}

// pureImports are the only packages that a pure file may use.
func pureImports() []string {
	return []string{"bytes", "encoding/binary", "encoding/json", "errors", "fmt", "hash/fnv", "net/netip", "reflect", "slices", "strings", "time", "math", "cmp", "strconv"}
}

func TestPurity(t *testing.T) {
	if testing.Short() {
		t.Skip("type-checking everything from source takes a while; the full run does it")
	}
	fset := token.NewFileSet()
	//lint:ignore SA1019 one flat package without build tags is all there is
	packages, err := parser.ParseDir(fset, ".", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	names := map[string]*ast.File{}
	for name, f := range packages["main"].Files {
		if !strings.HasSuffix(name, "_test.go") {
			files = append(files, f)
			names[name] = f
		}
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	if _, err := conf.Check("hactl", fset, files, info); err != nil {
		t.Fatalf("the package does not type-check: %v", err)
	}
	for _, name := range pureFiles() {
		f := names[name]
		if f == nil {
			t.Errorf("%s is not there", name)
			continue
		}
		for _, i := range f.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); !slices.Contains(pureImports(), path) {
				t.Errorf("%s: it imports %s", fset.Position(i.Pos()), path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if what := impure(n, info); what != "" {
				t.Errorf("%s: %s in a pure file", fset.Position(n.Pos()), what)
			}
			return true
		})
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				t.Errorf("%s: a package variable in a pure file", fset.Position(d.Pos()))
			}
		}
	}
}

// impure names what a node does that a pure file must not.
func impure(n ast.Node, info *types.Info) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "a goroutine"
	case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
		return "a channel"
	case *ast.RangeStmt:
		if tv, ok := info.Types[n.X]; ok {
			if _, isMap := tv.Type.Underlying().(*types.Map); isMap {
				return "the order of a map"
			}
		}
	case *ast.SelectorExpr:
		obj := info.Uses[n.Sel]
		if obj == nil || obj.Pkg() == nil {
			return ""
		}
		switch full := obj.Pkg().Path() + "." + obj.Name(); {
		case slices.Contains([]string{"time.Now", "time.Since", "time.Until", "time.After", "time.Sleep", "time.NewTimer", "time.Tick", "time.NewTicker", "time.AfterFunc"}, full):
			return "a clock: " + full
		case strings.HasPrefix(full, "fmt.Print"), strings.HasPrefix(full, "fmt.Fprint") && full != "fmt.Fprintf":
			return "printing: " + full
		}
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok {
			if obj := info.Uses[id]; obj != nil && obj.Name() == "boottime" {
				return "a clock: boottime"
			}
		}
	}
	return ""
}
