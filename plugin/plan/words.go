package plan

import (
	"reflect"
	"slices"
	"strings"
)

// DeploymentName returns what kubectl prints for a Deployment: "deployment.apps/api".
func DeploymentName(name string) string { return "deployment.apps/" + name }

// JoinWords joins words as in a sentence: "a, b and c".
func JoinWords(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// AppendNew appends v unless s contains it.
func AppendNew[T any](s []T, v T) []T {
	if slices.ContainsFunc(s, func(w T) bool { return reflect.DeepEqual(v, w) }) {
		return s
	}
	return append(s, v)
}

// FirstLine returns the first line of a text.
func FirstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}
