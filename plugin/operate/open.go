package operate

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/open"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// An OpenReader reads a sandbox, and how requests enter it.
type OpenReader interface {
	SandboxesNamed(ctx context.Context, names []string) (found []sandboxes.Sandbox, missing []string, err error)
	Entry(ctx context.Context, command []string) (plan.Entry, error)
	KeyCarriers(ctx context.Context, name string) (route.Carriers, error)
}

// An Open connects a proxy on this machine to a sandbox.
type Open struct {
	Read OpenReader
	// Watch watches the sandboxes of the namespace, and the Services of that and of another one.
	Watch  func(ctx context.Context, namespace string) (open.View, error)
	Report Reporter
}

// OpenOptions are what is to be opened.
type OpenOptions struct {
	Namespace string
	Name      string   // of the sandbox
	Service   string   // svc/SERVICE[.NAMESPACE][:PORT]; empty: the one by which requests enter the namespace
	Origins   []string // of web pages that may send requests
	Reachable bool     // it is an error if no pod can be reached yet, and not only a warning
}

// Connect reads the sandbox and the Service, and returns the proxy for them once the Service was tried.
func (u *Open) Connect(ctx context.Context, o OpenOptions) (*open.Proxy, error) {
	p, err := u.proxy(ctx, o)
	if err != nil {
		return nil, err
	}
	return p, u.reach(ctx, o, p)
}

func (u *Open) proxy(ctx context.Context, o OpenOptions) (*open.Proxy, error) {
	p := &open.Proxy{Sandbox: o.Name, Namespace: o.Namespace, Origins: o.Origins, Notice: u.Report.Warn}
	found, missing, err := u.Read.SandboxesNamed(ctx, []string{o.Name})
	switch {
	case err != nil:
		return nil, err
	case len(missing) > 0 || found[0].ConfigMap == nil:
		return nil, plan.NoSandbox(o.Name, o.Namespace)
	}
	entry, err := u.Read.Entry(ctx, plan.Kubectl("sandbox", "open", o.Name))
	if o.Service != "" {
		entry.Service, err = plan.ParseServiceRef(o.Service, o.Namespace)
	}
	if err != nil {
		return nil, err
	}
	p.Entry, p.Hosts = entry.Service, entry.Hosts
	if p.Carriers, err = u.Read.KeyCarriers(ctx, o.Name); err != nil {
		return nil, err
	}
	view, err := u.Watch(ctx, p.Entry.Namespace)
	if err != nil {
		return nil, err
	}
	s, ok := view.Service(p.Entry.Namespace, p.Entry.Name)
	if !ok {
		return nil, &plan.Problem{
			What: fmt.Sprintf("service %q not found in namespace %q", p.Entry.Name, p.Entry.Namespace),
			Hint: "list what exists", Fix: plan.Kubectl("get", "services", "-n", p.Entry.Namespace),
		}
	}
	port, err := plan.ServicePort(s, p.Entry.Port)
	if err != nil {
		return nil, err
	}
	p.Entry.Port, p.View = strconv.Itoa(int(port.Port)), view
	return p, nil
}

// reach checks at once whether the Service can be reached. Missing rights will not appear later and are an error;
// pods may still become ready.
func (u *Open) reach(ctx context.Context, o OpenOptions, p *open.Proxy) error {
	const patience = 10 * time.Second
	trying, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, _ := p.Service(p.Entry.Namespace, p.Entry.Name)
	port, err := plan.ServicePort(s, p.Entry.Port)
	if err != nil {
		return err
	}
	conn, err := p.Dial(trying, p.Entry.Namespace, p.Entry.Name, port.Name)
	switch {
	case err == nil:
		return conn.Close()
	case ctx.Err() != nil, cluster.IsForbidden(err):
		return err
	case o.Reachable:
		return &plan.Problem{
			What: fmt.Sprintf("%s can't be reached: %v", p.Entry, err),
			Hint: "its pods", Err: err,
			Fix: plan.Kubectl("get", "endpointslices", "-n", p.Entry.Namespace,
				"-l", "kubernetes.io/service-name="+p.Entry.Name),
		}
	}
	u.Report.Warn(fmt.Sprintf("%s can't be reached yet: %v", p.Entry, err))
	return nil
}
