package sandbox

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// declaredRoles returns the values of all constants of marks.go whose names begin with Role.
func declaredRoles(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "marks.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var roles []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Role") {
			return true
		}
		role, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		roles = append(roles, role)
		return true
	})
	return roles
}

// A role that is in no list would take the verb route, whatever it is of; one that is in two would take both.
func TestRolesOf_HasEachRoleUnderOneVerb(t *testing.T) {
	roles := declaredRoles(t)
	if len(roles) == 0 {
		t.Fatal("no roles are found in marks.go")
	}
	var listed []string
	for _, verb := range []string{VerbFork, VerbRoute} {
		listed = append(listed, RolesOf(verb)...)
	}
	slices.Sort(roles)
	slices.Sort(listed)
	if !slices.Equal(listed, roles) {
		t.Errorf("verbs are of %q, and the roles are %q", listed, roles)
	}
}

// Whoever may fork may share.
func TestRolesOf_HasSharesWithSandboxes(t *testing.T) {
	if !slices.Contains(RolesOf(VerbFork), RoleShare) {
		t.Error("a share takes another verb than the sandbox that it is of")
	}
}
