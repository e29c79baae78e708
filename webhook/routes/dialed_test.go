package routes

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// One router that could connect is enough; its own later failure counts, and another's does not.
func TestTakeDialed(t *testing.T) {
	b := &baseline{serving: map[types.UID]route.Version{"p": {}}, dialed: map[types.UID]string{}}
	x, y := &router{}, &router{}
	for i, step := range []struct {
		from *router
		why  string
		news bool
		want string
	}{
		{x, "refused", true, "refused"},
		{y, "", true, ""},
		{x, "refused", false, ""},
		{y, "refused", true, "refused"},
		{x, "", true, ""},
	} {
		if news := b.takeDialed(step.from, map[string]string{"p": step.why, "gone": "x"}); news != step.news || b.dialed["p"] != step.want || len(b.dialed) != 1 {
			t.Errorf("step %d: news %t, %v", i, news, b.dialed)
		}
	}
}
