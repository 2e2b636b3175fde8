// Is the pure part pure? It is type-checked on its own, so that a call into the shell does not compile, and searched
// for what would make two runs differ: clock, goroutine, channel, package variable, the order of a map, I/O.

package main

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pureFiles decide and encode. vocabulary only names what passes through the seams: pure files may use its types and
// constants, but call nothing of it.
var (
	pureFiles = []string{
		"instant.go", "state.go", "engine.go", "engine_rules.go", "engine_place.go", "engine_hold.go", "class.go", "guard.go", "event.go", "lease.go", "liveness.go", "reach.go",
		"agent.go", "wire.go", "arp.go", "drbd_parse.go", "drbd_parse_text.go", "drbd_status.go", "timers.go", "config.go",
		"status.go", "cmd_status_render.go", "sheet.go", "fence.go", "fence_run.go",
	}
	vocabulary = []string{"resource.go", "seams.go", "seal.go"}
	// pureImports compute, and do nothing else. Of time only the types and constants may be used: see impureTime.
	pureImports = []string{"cmp", "encoding/binary", "encoding/json", "errors", "fmt", "hash/fnv", "maps", "net/netip",
		"reflect", "slices", "strconv", "strings", "time", "unicode/utf8"}
	impureTime = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "LoadLocation", "Local"}
)

func TestPureFilesCompileAlone(t *testing.T) {
	_, problems := checkPure(t, pureFiles, vocabulary)
	for _, p := range problems {
		t.Error(p)
	}
}

// A test that forbids must be seen to forbid: each snippet has one fault, which has to be found.
func TestPurityFindsFaults(t *testing.T) {
	for _, c := range []struct{ name, code, want string }{
		{"clock", "import \"time\"\nfunc f() time.Time { return time.Now() }", "time.Now"},
		{"goroutine", "func f() { go f() }", "starts a goroutine"},
		{"channel type", "type c chan int", "channel"},
		{"send", "func f(c interface{ C() chan<- int }) { c.C() <- 1 }", "channel"},
		{"select", "func f() { select {} }", "select"},
		{"package variable", "var cache = 1", "package variable cache"},
		{"map order", "func f(m map[int]int) { for range m {} }", "ranges over a map"},
		{"map order, by name", "type byName map[string]int\nfunc f(m byName) { for k := range m { _ = k } }", "ranges over a map"},
		{"map order, by the maps package", "import \"maps\"\nfunc f(m map[int]int) { for k := range maps.Keys(m) { _ = k } }", "maps.Keys"},
		{"printing", "import \"fmt\"\nfunc f() { fmt.Println() }", "fmt.Println"},
		{"built-in printing", "func f() { println() }", "println"},
		{"import", "import \"os\"\nfunc f() { os.Exit(1) }", "imports os"},
		{"call into the shell", "func f() { _ = boottime() }", "undefined: boottime"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "fault.go")
			if err := os.WriteFile(file, []byte("package main\n"+c.code+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			_, problems := checkPure(t, []string{file}, nil)
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, c.want) }) {
				t.Errorf("%s\nproblems %q, want one with %q", c.code, problems, c.want)
			}
		})
	}
}

// checkPure type-checks files together with the vocabulary and lists what is not pure in them.
func checkPure(t *testing.T, files, vocabulary []string) (*types.Package, []string) {
	t.Helper()
	fset := token.NewFileSet()
	var problems []string
	var parsed []*ast.File
	for _, name := range slices.Concat(files, vocabulary) {
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
	}
	pure := func(p token.Pos) bool { return slices.Contains(files, fset.Position(p).Filename) }
	say := func(p token.Pos, format string, a ...any) {
		problems = append(problems, fmt.Sprintf("%s: %s", fset.Position(p), fmt.Sprintf(format, a...)))
	}
	config := types.Config{Importer: importer.Default(), Error: func(err error) {
		if e, ok := err.(types.Error); ok && !e.Soft && pure(e.Pos) {
			say(e.Pos, "%s: it belongs to the shell, or the file is not pure", e.Msg)
		}
	}}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	pkg, _ := config.Check("hactl", fset, parsed, info) // its errors have been taken one by one
	for i, f := range parsed[:len(files)] {
		p := purity{info: info, say: say, vocabulary: func(p token.Pos) bool {
			return slices.Contains(vocabulary, fset.Position(p).Filename)
		}}
		p.imports(parsed[i])
		p.variables(f)
		ast.Inspect(f, p.node)
	}
	return pkg, problems
}

// purity looks through one file.
type purity struct {
	info       *types.Info
	say        func(p token.Pos, format string, a ...any)
	vocabulary func(token.Pos) bool
}

func (p purity) imports(f *ast.File) {
	for _, s := range f.Imports {
		if path := strings.Trim(s.Path.Value, `"`); !slices.Contains(pureImports, path) {
			p.say(s.Pos(), "imports %s", path)
		}
	}
}

func (p purity) variables(f *ast.File) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			for _, name := range s.(*ast.ValueSpec).Names {
				if name.Name != "_" {
					p.say(name.Pos(), "package variable %s", name.Name)
				}
			}
		}
	}
}

func (p purity) node(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		p.say(n.Pos(), "starts a goroutine")
	case *ast.SelectStmt:
		p.say(n.Pos(), "select")
	case *ast.ChanType, *ast.SendStmt:
		p.say(n.Pos(), "channel")
	case *ast.UnaryExpr:
		if n.Op == token.ARROW {
			p.say(n.Pos(), "channel")
		}
	case *ast.RangeStmt:
		if t := p.info.Types[n.X].Type; t != nil {
			if _, ok := t.Underlying().(*types.Map); ok {
				p.say(n.Pos(), "ranges over a map, in an order that is never the same")
			}
		}
	case *ast.Ident:
		p.use(n)
	}
	return true
}

// use judges a name by what it stands for.
func (p purity) use(id *ast.Ident) {
	o := p.info.Uses[id]
	if o == nil {
		return
	}
	if b, ok := o.(*types.Builtin); ok && strings.HasPrefix(b.Name(), "print") {
		p.say(id.Pos(), "%s", b.Name())
	}
	if o.Pkg() == nil {
		return
	}
	name := o.Pkg().Path() + "." + o.Name()
	_, function := o.(*types.Func)
	switch {
	case o.Pkg().Path() == "time" && slices.Contains(impureTime, o.Name()),
		o.Pkg().Path() == "fmt" && function && (strings.HasPrefix(o.Name(), "Print") || strings.HasPrefix(o.Name(), "Scan")),
		o.Pkg().Path() == "maps" && slices.Contains([]string{"Keys", "Values", "All"}, o.Name()):
		p.say(id.Pos(), "%s", name)
	}
	if o.Parent() == o.Pkg().Scope() && p.vocabulary(o.Pos()) {
		switch o.(type) {
		case *types.Func, *types.Var:
			p.say(id.Pos(), "%s is the shell's", o.Name())
		}
	}
}
