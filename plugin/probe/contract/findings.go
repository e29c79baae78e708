// Package contract compares what a variant promises and does with what the baseline does. HTTP is compared by an
// OpenAPI document and by answers to the same requests, gRPC by the definitions from server reflection. It returns
// what breaks callers, with the reasons of package result.
//
// A variant may answer anything. So what is read of it is bounded, and its answers never direct the program
// elsewhere.
package contract

import (
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
)

// maxMessage bounds the message of a finding, in bytes.
const maxMessage = 400

// An Arm is a variant to compare, with its key.
type Arm struct {
	Name string
	Key  string
}

// arms returns the arms in the result's order, and their keys.
func arms(variants []Arm) ([]result.Arm, []string) {
	all := []result.Arm{{Name: result.NameBaseline, Role: result.RoleBaseline}}
	keys := []string{""}
	for _, v := range variants {
		all, keys = append(all, result.Arm{Name: v.Name, Role: result.RoleVariant}), append(keys, v.Key)
	}
	return all, keys
}

// findings collects findings: at most one per arm, reason, operation and path.
type findings struct {
	seen map[[4]string]bool
	list []result.Finding
	// dropped is the number of findings that did not fit.
	dropped int
}

func (f *findings) add(one result.Finding) {
	// All quotations of answers enter a result here.
	one.Path, one.Message = quoted(one.Path), quoted(one.Message)
	key := [4]string{one.Arm, string(one.Reason), one.Operation, one.Path}
	if f.seen[key] {
		return
	}
	if len(f.list) == result.MaxFindings {
		f.dropped++
		return
	}
	if f.seen == nil {
		f.seen = map[[4]string]bool{}
	}
	f.seen[key] = true
	f.list = append(f.list, one)
}

// blame marks the findings of variants that the baseline has as well.
func (f *findings) blame() {
	for i, one := range f.list {
		f.list[i].Baseline = f.seen[[4]string{result.NameBaseline, string(one.Reason), one.Operation, one.Path}]
	}
}

// sorted returns the findings by arm, in the order of arms, and then by operation, reason and path.
func (f *findings) sorted(arms []result.Arm) []result.Finding {
	place := make(map[string]int, len(arms))
	for i, a := range arms {
		place[a.Name] = i
	}
	slices.SortStableFunc(f.list, func(a, b result.Finding) int {
		if d := place[a.Arm] - place[b.Arm]; d != 0 {
			return d
		}
		return strings.Compare(a.Operation+"\x00"+string(a.Reason)+"\x00"+a.Path, b.Operation+"\x00"+string(b.Reason)+"\x00"+b.Path)
	})
	return f.list
}

func quoted(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}
