package sandbox

import (
	"encoding/json"
	"fmt"
)

// RouteRecord is the value of AnnotationRouted: what `route` added to a workload. It is the intent that the workload is
// routed: admission keeps what it lists, whoever writes the workload, until Leaving is set. `unroute` removes it.
type RouteRecord struct {
	// Names are the names that `route` gave to ports of the pod template.
	Names []AddedName `json:"names,omitempty"`
	// Ports is the template's AnnotationPorts. It is empty until the template's labels request routers.
	Ports string `json:"ports,omitempty"`
	// Made lists, as JSON pointers, the maps that were created to hold a label or annotation.
	Made []string `json:"made,omitempty"`
	// Template reports whether AnnotationTemplate was added.
	Template bool `json:"template,omitempty"`
	// Leaving means that `unroute` has started: admission keeps nothing of what is listed.
	Leaving bool `json:"leaving,omitempty"`
	// Since is the workload's metadata.generation when `route` or `unroute` wrote the record. It identifies outdated
	// records, such as one that `kubectl rollout undo` copies from a ReplicaSet.
	Since int64 `json:"since,omitempty"`
}

// An AddedName is a name given to a port of the pod template.
type AddedName struct {
	Container string `json:"container"`
	Port      uint16 `json:"port"`
	Name      string `json:"name"`
	// Made is what was created for the name: MadeName, MadePort or MadePorts.
	Made string `json:"made"`
}

// Values of AddedName.Made.
const (
	MadeName  = "name"  // the port was declared, without a name
	MadePort  = "port"  // the port was not declared
	MadePorts = "ports" // the container declared no ports
)

// ParseRouteRecord parses AnnotationRouted; an empty string is an empty record.
func ParseRouteRecord(s string) (RouteRecord, error) {
	var r RouteRecord
	if s == "" {
		return r, nil
	}
	if err := json.Unmarshal([]byte(s), &r); err != nil {
		return r, fmt.Errorf("annotation %s: %w", AnnotationRouted, err)
	}
	return r, nil
}

// String formats the record for ParseRouteRecord.
func (r RouteRecord) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and booleans always encode
	}
	return string(b)
}
