// Command demo shows the product at work: HotROD, an application of four services, on a real cluster; a fork of two of them;
// and requests that are answered by fork or baseline as their key says.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/delivery"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
)

func main() {
	var d demo
	flag.StringVar(&d.root, "root", ".", "root of the repository")
	flag.StringVar(&d.own, "own", "", "path of the program that brought up the cluster; empty: the cluster of the current context")
	flag.StringVar(&d.registry, "registry", "", "registry to push images to, HOST/PATH; empty: load them into the nodes")
	flag.StringVar(&d.namespace, "namespace", "hotrod", "namespace for the application; made if need be, and kept")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	d.screen = newScreen(os.Stdout)
	if err := d.run(ctx); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted; what is there stays: make demo goes on from it")
		}
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

type demo struct {
	*screen
	root, own, registry, namespace string

	target delivery.Target
	config *rest.Config
	client kubernetes.Interface
}

func (d *demo) run(ctx context.Context) error {
	start := time.Now()
	if err := d.connect(); err != nil {
		return err
	}
	d.say("%s", d.bold("kubectl sandbox, on a real cluster, with an application of somebody else's"))

	d.step("HotROD, Jaeger's demo: four services, each a Deployment and a Service")
	d.say("a request to frontend has it call customer (HTTP), driver (gRPC) and, ten times, route (HTTP)")
	if err := d.deploy(ctx); err != nil {
		return err
	}

	d.step("A router in front of each, once for all sandboxes to come")
	var baselines []string
	for _, name := range hotrod.Services() {
		baselines = append(baselines, "deploy/"+name)
	}
	if err := d.sandbox(ctx, append([]string{"route"}, baselines...)...); err != nil {
		return err
	}

	d.step("Two changes that want trying, each in a sandbox of its own: just the changed service is forked")
	d.say("customer, with HotROD's own fixes for its slow database switched on:")
	if err := d.sandbox(ctx, "fork", "deploy/customer", "--name=fast-db", "--key=fast-db", "--image="+d.target.Reference(apps.HotrodFast)); err != nil {
		return err
	}
	d.say("driver, in another release of HotROD:")
	if err := d.sandbox(ctx, "fork", "deploy/driver", "--name=old-driver", "--key=old-driver", "--image="+d.target.Reference(apps.HotrodOld)); err != nil {
		return err
	}

	if err := d.requests(ctx); err != nil {
		return err
	}

	d.step("What there is now")
	if err := d.sandbox(ctx, "list"); err != nil {
		return err
	}
	if err := d.sandbox(ctx, "route"); err != nil {
		return err
	}
	d.next(ctx, time.Since(start))
	return nil
}

func (d *demo) connect() (err error) {
	if d.config, d.target, err = delivery.Connect(d.own, d.registry); err != nil {
		return err
	}
	d.client, err = kubernetes.NewForConfig(d.config)
	return err
}

// sandbox shows a `kubectl sandbox` command, runs it, and shows what it prints.
func (d *demo) sandbox(ctx context.Context, args ...string) error {
	d.command("kubectl sandbox " + strings.Join(args, " ") + " -n " + d.namespace)
	out, err := d.kubectl(ctx, append([]string{"sandbox"}, append(args, "--namespace="+d.namespace)...)...)
	d.output(out)
	if err != nil {
		return fmt.Errorf("kubectl sandbox %s: %w", args[0], err)
	}
	return nil
}

// kubectl returns all that a kubectl command prints.
func (d *demo) kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "kubectl", args...).CombinedOutput()
	return string(out), err
}
