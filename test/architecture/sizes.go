package architecture

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"
)

// Limits of size, in lines, and in exported methods of a type. A package's limit is that of its product code.
const (
	maxPackage       = 3500
	maxFile          = 500
	maxTestFile      = 700
	maxFunction      = 70
	maxTestFunction  = 100
	maxExportedNames = 25
)

// Sizes returns what is too large in Go files, given by their path in the repository, one sentence each, in order. All below test/
// is a test.
func Sizes(files map[string][]byte) ([]string, error) {
	var problems []string
	packages, methods := map[string]int{}, map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		isTest := strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "test/")
		ofFile, ofFunction := maxFile, maxFunction
		if isTest {
			ofFile, ofFunction = maxTestFile, maxTestFunction
		}
		lines := bytes.Count(files[name], []byte("\n"))
		if lines > ofFile {
			problems = append(problems, fmt.Sprintf("%s has %d lines, more than %d", name, lines, ofFile))
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, files[name], parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1; n > ofFunction {
				problems = append(problems, fmt.Sprintf("%s: %s has %d lines, more than %d", name, fn.Name.Name, n, ofFunction))
			}
			if fn.Recv != nil && fn.Name.IsExported() && !isTest {
				methods[path.Dir(name)+"."+receiver(fn)]++
			}
		}
		if !isTest {
			packages[path.Dir(name)] += lines
		}
	}
	for name, lines := range packages {
		if lines > maxPackage {
			problems = append(problems, fmt.Sprintf("package %s has %d lines, more than %d", name, lines, maxPackage))
		}
	}
	for name, n := range methods {
		if n > maxExportedNames {
			problems = append(problems, fmt.Sprintf("type %s has %d exported methods, more than %d", name, n, maxExportedNames))
		}
	}
	slices.Sort(problems)
	return problems, nil
}

// receiver returns the name of a method's type.
func receiver(fn *ast.FuncDecl) string {
	t := fn.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
