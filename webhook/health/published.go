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
	// maxPublishedNames bounds each list of pods that is published of a fork.
	maxPublishedNames = 10
	// maxPublishedForks bounds the forks of one sandbox that are published.
	maxPublishedForks = 100
)

// Published is what the control plane says of a sandbox's forks, by the name of the fork's Deployment. Its JSON form is a value in the
// sandbox's ConfigMap, so that whoever may read that knows what routers acknowledged.
type Published map[string]Truth

// A Truth is what the control plane says of one fork.
type Truth struct {
	Of      types.UID `json:"of"` // the Deployment's UID
	Code    Code      `json:"code"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"` // when the code became this one
	Routing Routing   `json:"routing,omitzero"`
}

// NewTruth makes what is published of a fork from the Report about it and the facts that only the control plane has. It is bounded in
// size, whatever the number of pods.
func NewTruth(f Facts, r Report) Truth {
	c := r.Cause()
	t := Truth{Of: f.Deployment.UID, Code: c.Code, Message: clip(c.Message), Since: f.Now.UTC().Truncate(time.Second)}
	if f.Routing == nil {
		return t
	}
	t.Routing = *f.Routing
	t.Routing.Serving = nil // the gates of the fork's pods say it without delay
	t.Routing.Claim.Message = clip(t.Routing.Claim.Message)
	t.Routing.Routers = first(f.Routing.Routers)
	t.Routing.Shared = f.Routing.Shared[:min(len(f.Routing.Shared), maxPublishedNames)]
	failed := maps.Clone(f.Routing.Ports)
	maps.DeleteFunc(failed, func(_, why string) bool { return why == "" })
	t.Routing.Ports = first(failed)
	return t
}

// Same says whether two truths differ in nothing but their time.
func (t Truth) Same(o Truth) bool {
	t.Since, o.Since = time.Time{}, time.Time{}
	a, errA := json.Marshal(t)
	b, errB := json.Marshal(o)
	return errA == nil && errB == nil && string(a) == string(b)
}

// Format writes p as JSON.
func (p Published) Format() (string, error) {
	b, err := json.Marshal(first(p, maxPublishedForks))
	return string(b), err
}

// ParsePublished reads what Format wrote. What is not that, since somebody else wrote it, is nothing.
func ParsePublished(s string) Published {
	var p Published
	if s == "" || json.Unmarshal([]byte(s), &p) != nil {
		return nil
	}
	return p
}

// first returns the entries with the first names, at most maxPublishedNames or the limit that is given.
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
