package health

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// maxMessage bounds a published message, in bytes.
	maxMessage = 400
	// maxPublishedNames bounds each published list of a fork's pods.
	maxPublishedNames = 10
	// maxPublishedForks bounds the published forks of one sandbox.
	maxPublishedForks = 100
)

// Published is the control plane's state of a sandbox's forks, by the name of the fork's Deployment. Its JSON form is a
// value in the sandbox's ConfigMap, whose readers so know what routers acknowledged.
type Published map[string]Truth

// A Truth is the control plane's state of one fork.
type Truth struct {
	Of      types.UID `json:"of"` // the Deployment's UID
	Code    Code      `json:"code"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"` // when the code last changed
	Routing Routing   `json:"routing,omitzero"`
}

// NewTruth creates the published state of a fork from its Report and the facts that only the control plane has. Its
// size is bounded, whatever the number of pods.
func NewTruth(f Facts, r Report) Truth {
	c := r.Cause()
	t := Truth{Of: f.Deployment.UID, Code: c.Code, Message: clip(c.Message), Since: f.Now.UTC().Truncate(time.Second)}
	if f.Routing == nil {
		return t
	}
	t.Routing = *f.Routing
	t.Routing.Serving = nil // the gates of the fork's pods show it without delay
	t.Routing.Claim.Message = clip(t.Routing.Claim.Message)
	t.Routing.Routers = first(f.Routing.Routers)
	t.Routing.Shared = f.Routing.Shared[:min(len(f.Routing.Shared), maxPublishedNames)]
	failed := maps.Clone(f.Routing.Ports)
	maps.DeleteFunc(failed, func(_, why string) bool { return why == "" })
	t.Routing.Ports = first(failed)
	return t
}

// Same reports whether two truths differ in their time only.
func (t Truth) Same(o Truth) bool {
	t.Since, o.Since = time.Time{}, time.Time{}
	a, errA := json.Marshal(t)
	b, errB := json.Marshal(o)
	return errA == nil && errB == nil && string(a) == string(b)
}

// Format formats p as JSON.
func (p Published) Format() (string, error) {
	b, err := json.Marshal(first(p, maxPublishedForks))
	return string(b), err
}

// ParsePublished parses what Format returned. Anything else was written by somebody else and counts as nothing.
func ParsePublished(s string) Published {
	var p Published
	if s == "" || json.Unmarshal([]byte(s), &p) != nil {
		return nil
	}
	return p
}

// first returns the entries with the first names, at most maxPublishedNames or the given limit.
func first[V any](all map[string]V, limit ...int) map[string]V {
	most := maxPublishedNames
	if len(limit) > 0 {
		most = limit[0]
	}
	if len(all) == 0 {
		return nil
	}
	kept := make(map[string]V, min(len(all), most))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if len(kept) == most {
			break
		}
		kept[name] = all[name]
	}
	return kept
}

func clip(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	s = s[:maxMessage-3]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "..."
}
