package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/tunnel"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/open"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
)

// openPort is the default port of `open` if it is free. It is always the same, so that cookies, bookmarks and
// registrations with a sign-in service stay valid.
const openPort = 8080

// openFlags are the flags and arguments of `open`.
type openFlags struct {
	*tool
	port    uint16
	address string
	origins []string
	output  string
	browser bool

	name, service string
	command       []string
	addresses     []netip.Addr
	portGiven     bool
}

func newOpen(t *tool) *cobra.Command {
	f := &openFlags{tool: t}
	cmd := &cobra.Command{
		Use:                   "open NAME [svc/SERVICE[.NAMESPACE][:PORT]] [-- COMMAND [ARGS...]]",
		DisableFlagsInUseLine: true,
		Short:                 "Open a sandbox on this machine, in a browser or for a command",
		Long: templates.LongDesc(`
			Serve a sandbox on this machine until the command is interrupted. Requests to http://NAME.localhost:PORT go
			to the Service, through the API server, with the sandbox's key. A key that a request already has is
			replaced; other baggage is kept. You need neither a header nor a browser extension.

			All sandboxes of the namespace are served at once, each at its name. The baseline, without a key, is at
			http://baseline.localhost:PORT. Another Service is at SERVICE.NAME.localhost, and one of another namespace
			at SERVICE.NAMESPACE.NAME.localhost. The sandbox NAME is also at http://127.0.0.1:PORT, for programs that
			can't resolve such names.

			You may omit the Service if the namespace has one obvious entry: the Service behind its Ingresses and
			HTTPRoutes, its only LoadBalancer or NodePort, or its only Service. While no pod is ready, a request waits
			up to 10 seconds for one.

			With a command after --, open runs the command with the address in SANDBOX_URL and exits with its exit code.`),
		Example: templates.Examples(`
			# Open a sandbox in the browser
			kubectl sandbox open pr-42 --browser

			# By a Service that is named
			kubectl sandbox open pr-42 svc/frontend

			# By a Service of another namespace, whose requests reach the sandbox's services further down
			kubectl sandbox open pr-42 svc/gateway.edge

			# Run tests against it
			kubectl sandbox open pr-42 -- npx playwright test`),
		ValidArgsFunction: t.completeSandboxes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.complete(cmd, args); err != nil {
				return err
			}
			return f.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.Uint16Var(&f.port, "port", openPort, "Port to serve at; 0 means any free port. Without --port, any free port is used if the default is taken or a command is run.")
	flags.StringVar(&f.address, "address", "localhost", `Where to listen: "localhost", or an IP address of this machine. On an address other than loopback, everybody who can reach it can use the sandbox.`)
	flags.StringArrayVar(&f.origins, "allow-origin", nil, "Origin of web pages that may send requests, as https://HOST. Repeat it for further ones. Pages on this machine may.")
	flags.BoolVar(&f.browser, "browser", false, "Open the address in the browser.")
	flags.StringVarP(&f.output, "output", "o", "", `Output format: "json" prints the addresses as one object.`)
	completeValues(cmd, "output", "json")
	return cmd
}

func (f *openFlags) complete(cmd *cobra.Command, args []string) (err error) {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		f.command, args = args[dash:], args[:dash]
		if len(f.command) == 0 {
			return usageError(cmd, "no command follows --")
		}
	}
	if len(args) == 0 || len(args) > 2 {
		return usageError(cmd, "open takes the name of one sandbox, and of one Service as svc/SERVICE")
	}
	f.name, f.portGiven = sandboxArg(args[0]), cmd.Flags().Changed("port")
	if err := validName(cmd, f.name); err != nil {
		return err
	}
	if f.name == open.Baseline {
		return usageError(cmd, fmt.Sprintf("a sandbox named %q can't be opened: its host name is the baseline's", f.name))
	}
	if len(args) == 2 {
		f.service = args[1]
		if _, err := plan.ParseServiceRef(f.service, "default"); err != nil {
			return usageError(cmd, err.Error())
		}
	}
	if f.addresses, err = open.ParseAddresses(f.address); err != nil {
		return usageError(cmd, "--address "+err.Error())
	}
	for _, o := range f.origins {
		if u, err := url.Parse(o); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Scheme+"://"+u.Host != o {
			return usageError(cmd, fmt.Sprintf("--allow-origin %q is not https://HOST[:PORT]", o))
		}
	}
	switch {
	case f.output != "" && f.output != "json":
		return usageError(cmd, fmt.Sprintf("--output %q is not \"json\"", f.output))
	case f.command != nil && (f.browser || f.output != ""):
		return usageError(cmd, "--browser and --output are of no use with a command")
	}
	if f.command != nil && !f.portGiven {
		f.port = 0
	}
	return nil
}

// openGC is the garbage collector's percentage (see runtime/debug) while a sandbox is open. Each frame of a
// port-forward is read into newly allocated memory, and little else is live. So frequent collections are cheap, and
// keep the process small.
const openGC = 25

func (f *openFlags) run(ctx context.Context) error {
	defer debug.SetGCPercent(debug.SetGCPercent(openGC))
	c, err := f.client()
	if err != nil {
		return err
	}
	watch := func(ctx context.Context, namespace string) (open.View, error) {
		return tunnel.New(c).Watch(ctx, namespace)
	}
	use := operate.Open{Read: read.New(c), Watch: watch, Report: &reporter{tool: f.tool}}
	p, err := use.Connect(ctx, operate.OpenOptions{
		Namespace: c.Namespace, Name: f.name, Service: f.service, Origins: f.origins, Reachable: f.command != nil,
	})
	if err != nil {
		return err
	}
	printer.Unreached(f.ErrOut, operate.FindUnreached(ctx, read.New(c), c.Namespace, f.name), f.chosen())
	listeners, err := f.listen(ctx, p)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	go func() {
		defer close(over)
		p.Serve(serving, listeners)
	}()
	defer func() {
		stop()
		<-over
	}()
	if f.command != nil {
		return f.runCommand(ctx, p)
	}
	if err := f.show(ctx, p); err != nil {
		return err
	}
	if f.browser {
		if err := browse(ctx, p.URL(f.name)); err != nil {
			f.warn("no browser could be opened: %v", err)
		}
	}
	<-ctx.Done()
	return nil
}

func (f *openFlags) listen(ctx context.Context, p *open.Proxy) ([]net.Listener, error) {
	listeners, port, err := open.Listen(ctx, f.addresses, f.port)
	if errors.Is(err, syscall.EADDRINUSE) && !f.portGiven {
		listeners, port, err = open.Listen(ctx, f.addresses, 0)
	}
	if err != nil {
		return nil, &plan.Problem{
			What: fmt.Sprintf("can't listen on --address %s --port %d: %v", f.address, f.port, err),
			Hint: "any port that is free", Fix: append(plan.Kubectl("sandbox", "open", f.name, p.Entry.String()), "--port=0"), Err: err,
		}
	}
	p.Port = port
	return listeners, nil
}

// plainURL returns the address of the sandbox for programs that do not resolve its host name.
func (f *openFlags) plainURL(p *open.Proxy) string {
	return "http://" + netip.AddrPortFrom(f.addresses[0], p.Port).String()
}

// show prints the addresses.
func (f *openFlags) show(ctx context.Context, p *open.Proxy) error {
	key, _ := p.Key(f.name)
	opened := printer.Opened{
		Sandbox: f.name, Namespace: p.Namespace, Key: key, Service: p.Entry.String(),
		URL: p.URL(f.name), BaselineURL: p.URL(open.Baseline), PlainURL: f.plainURL(p),
		Resolves: p.Resolves(ctx, f.name), Port: p.Port,
	}
	if f.output == "json" {
		return opened.JSON(f.Out)
	}
	opened.Text(f.Out)
	if slices.ContainsFunc(f.addresses, func(a netip.Addr) bool { return !a.IsLoopback() }) {
		f.warn("everybody who can reach %s port %d can use this sandbox and the baseline", f.address, p.Port)
	}
	return nil
}
