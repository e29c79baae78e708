package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Port is a named TCP port of a baseline that its router captures.
type Port struct {
	Name   string // the port's name in the pod template
	Number uint16 // the port the app listens on
}

// FormatPorts formats the value of AnnotationPorts: "NAME=NUMBER,...", sorted by name.
func FormatPorts(ports []Port) string {
	sorted := slices.SortedFunc(slices.Values(ports), func(a, b Port) int { return strings.Compare(a.Name, b.Name) })
	parts := make([]string, len(sorted))
	for i, p := range sorted {
		parts[i] = p.Name + "=" + strconv.Itoa(int(p.Number))
	}
	return strings.Join(parts, ",")
}

// ParsePorts parses the value of AnnotationPorts; an empty string is no ports. It fails on an invalid name or number,
// and on a duplicate name. A number may have two names, because Services may use either.
func ParsePorts(s string) ([]Port, error) {
	if s == "" {
		return nil, nil
	}
	var ports []Port
	for part := range strings.SplitSeq(s, ",") {
		name, number, ok := strings.Cut(part, "=")
		if !ok || !portName(name) {
			return nil, fmt.Errorf("port %q is not NAME=NUMBER", part)
		}
		n, err := parsePort(number)
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", part, err)
		}
		if slices.ContainsFunc(ports, func(p Port) bool { return p.Name == name }) {
			return nil, fmt.Errorf("port %q comes twice", part)
		}
		ports = append(ports, Port{Name: name, Number: n})
	}
	return ports, nil
}

// A Capture is a captured port as the router sees it: it listens on Listen instead of the app's Number.
type Capture struct {
	Port
	Listen uint16
}

// FormatCaptures formats the value of EnvRouterPorts: "NAME=LISTEN:APP,...".
func FormatCaptures(captures []Capture) string {
	parts := make([]string, len(captures))
	for i, c := range captures {
		parts[i] = fmt.Sprintf("%s=%d:%d", c.Name, c.Listen, c.Number)
	}
	return strings.Join(parts, ",")
}

// ParseCaptures parses the value of EnvRouterPorts.
func ParseCaptures(s string) ([]Capture, error) {
	if s == "" {
		return nil, nil
	}
	var captures []Capture
	for part := range strings.SplitSeq(s, ",") {
		name, rest, ok := strings.Cut(part, "=")
		listen, app, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || !portName(name) {
			return nil, fmt.Errorf("port %q is not NAME=LISTEN:APP", part)
		}
		l, err := parsePort(listen)
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", part, err)
		}
		a, err := parsePort(app)
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", part, err)
		}
		captures = append(captures, Capture{Port: Port{Name: name, Number: a}, Listen: l})
	}
	return captures, nil
}

// TargetPorts is what `route` changed in a Service, by the PortKey of its ports: the number that each had as
// targetPort, and the name it has now.
type TargetPorts map[string]TargetPort

// A TargetPort is one change of a Service's targetPort from a number to a name.
type TargetPort struct {
	Number uint16 `json:"number"` // the previous number: the API server sets an absent targetPort to the port
	Name   string `json:"name"`   // the current name
}

// PortKey identifies a port within a Service: protocol and port number, which the API server keeps unique.
func PortKey(protocol string, port int32) string {
	if protocol == "" {
		protocol = "TCP"
	}
	return protocol + "-" + strconv.Itoa(int(port))
}

// FormatTargetPorts formats the value of AnnotationTargetPorts.
func FormatTargetPorts(t TargetPorts) string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // a map of plain structs always encodes
	}
	return string(b)
}

// ParseTargetPorts parses the value of AnnotationTargetPorts.
func ParseTargetPorts(s string) (TargetPorts, error) {
	var t TargetPorts
	if err := json.Unmarshal([]byte(s), &t); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", AnnotationTargetPorts, err)
	}
	return t, nil
}

// Restored is the guard's record about a Service on which it restored numeric targetPorts.
type Restored struct {
	Time   string `json:"time"` // RFC 3339
	Reason string `json:"reason"`
}

// FormatRestored formats the value of AnnotationRestored.
func FormatRestored(p Restored) string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // two strings always encode
	}
	return string(b)
}

// ParseRestored parses the value of AnnotationRestored.
func ParseRestored(s string) (Restored, error) {
	var p Restored
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return Restored{}, fmt.Errorf("annotation %s: %w", AnnotationRestored, err)
	}
	return p, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port number", s)
	}
	return uint16(n), nil
}

// portName checks a name against RFC 6335, as Kubernetes does for container ports: at most 15 lowercase letters, digits
// and single inner '-', with at least one letter.
func portName(s string) bool {
	return s != "" && len(s) <= 15 && all(s, nameByte) && s[0] != '-' && s[len(s)-1] != '-' && !strings.Contains(s, "--") &&
		strings.ContainsAny(s, "abcdefghijklmnopqrstuvwxyz")
}
