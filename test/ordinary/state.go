package ordinary

import (
	"fmt"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
)

// Images is how many releases of the app the baseline is deployed in, in turn.
const Images = 3

// Name is the name of the workload and its Service.
const Name = "api"

// A State is what a sequence has made of an application, as far as its owners intend it: what the manifests say, and what was done
// by hand since.
type State struct {
	Image    int  // release of the app
	Port     int  // 0 or 1: which of two numbers
	Name     int  // of the port: none, or one of two
	ByName   bool // the Service finds the port by its name
	Second   bool // there is a second Service
	Selector bool // the Service selects by two labels

	Replicas   int
	Paused     bool
	Autoscaled bool
	Helm3      int // revisions of the release
	Helm4      int

	Routed     bool
	Remade     bool // since it was routed, the workload or its Service was deleted and made anew: the new one has no marks
	Forked     bool
	Crashing   bool // the fork's newest image crashes
	ToBaseline bool // the fork has --when-unready=baseline
}

// Start is the state in which a sequence begins: an application as most people write it.
func Start() State { return State{Replicas: 1} }

// Routable says that keyed requests are to reach the fork: a user has asked for it, and has done nothing that is against it.
func (s State) Routable() bool {
	return s.Routed && s.Forked && !s.Crashing && s.Replicas > 0 && !s.Paused
}

// PortNumber is the port on which the app listens.
func (s State) PortNumber() int { return 9898 + s.Port }

// PortName is the name of the port; empty: none.
func (s State) PortName() string { return []string{"", "web", "http-api"}[s.Name] }

// Manifests returns what the owner's repository holds. It names no replicas, as where an autoscaler or a person has the say over them.
func (s State) Manifests() string {
	port, target := fmt.Sprintf("{containerPort: %d}", s.PortNumber()), fmt.Sprint(s.PortNumber())
	if s.Name > 0 {
		port = fmt.Sprintf("{name: %s, containerPort: %d}", s.PortName(), s.PortNumber())
	}
	if s.ByName {
		target = s.PortName()
	}
	selector := "{app: api}"
	if s.Selector {
		selector = "{app: api, tier: backend}"
	}
	text := []string{fmt.Sprintf(workload, s.Image, apps.Podinfo(s.Image), s.PortNumber(), port, s.PortNumber()),
		fmt.Sprintf(service, Name, selector, 80, target)}
	if s.Second {
		text = append(text, fmt.Sprintf(service, Name+"-too", "{app: api}", 8080, target))
	}
	return strings.Join(text, "---\n")
}

// Of the app: on SIGTERM it serves on for 3 s, then finishes what is in flight.
const workload = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: api
  labels: {app: api}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata:
      labels: {app: api, tier: backend}
      annotations: {example.test/release: r%d}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: app
        image: %s
        args: [--port=%d, --level=error, --server-shutdown-timeout=5s]
        ports: [%s]
        readinessProbe: {httpGet: {path: /readyz, port: %d}, periodSeconds: 1}
        resources: {requests: {cpu: 10m, memory: 32Mi}}
`

const service = `apiVersion: v1
kind: Service
metadata:
  name: %s
  labels: {app: api}
spec:
  selector: %s
  ports: [{name: http, port: %d, targetPort: %s}]
`
