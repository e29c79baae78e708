// Command argocd syncs manifests as Argo CD's application controller does, by Argo CD's own engine: client-side apply by
// default, server-side with force of conflicts where an Application says ServerSideApply=true.
//
//	argocd [-server-side] NAMESPACE APPLICATION FILE
//
// It prints one line for each object: what was done with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/argoproj/gitops-engine/pkg/cache"
	"github.com/argoproj/gitops-engine/pkg/engine"
	"github.com/argoproj/gitops-engine/pkg/sync"
	"github.com/argoproj/gitops-engine/pkg/sync/common"
	"github.com/argoproj/gitops-engine/pkg/utils/kube"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	tracking = "argocd.argoproj.io/tracking-id"
	manager  = "argocd-controller"
	// longest is how long a sync may take: it waits until what it applied is healthy.
	longest = 3 * time.Minute
)

func main() {
	serverSide := flag.Bool("server-side", false, "sync with the option ServerSideApply=true")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if flag.NArg() != 3 {
		fmt.Fprintln(os.Stderr, "usage: argocd [-server-side] NAMESPACE APPLICATION FILE")
		os.Exit(2) //nolint:gocritic // the process ends
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if err := run(ctx, flag.Arg(0), flag.Arg(1), flag.Arg(2), *serverSide, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, namespace, application, path string, serverSide bool, stdout io.Writer) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit
	objects, err := read(namespace, application, path)
	if err != nil {
		return err
	}
	// An object belongs to the Application whose tracking id it carries.
	clusterCache := cache.NewClusterCache(config,
		cache.SetNamespaces([]string{namespace}),
		cache.SetLogr(logr.Discard()),
		cache.SetPopulateResourceInfoHandler(func(o *unstructured.Unstructured, _ bool) (any, bool) {
			id := o.GetAnnotations()[tracking]
			return id, id != ""
		}),
	)
	e := engine.NewEngine(config, clusterCache, engine.WithLogr(logr.Discard()))
	stop, err := e.Run()
	if err != nil {
		return err
	}
	defer stop()
	managed := func(r *cache.Resource) bool {
		id, _ := r.Info.(string)
		return id != "" && id == trackingID(application, r.ResourceKey())
	}
	results, err := e.Sync(ctx, objects, managed, "HEAD", namespace,
		sync.WithLogr(logr.Discard()), sync.WithPrune(true),
		sync.WithServerSideApply(serverSide), sync.WithServerSideApplyManager(manager))
	failed := err
	for _, r := range results {
		if _, err := fmt.Fprintf(stdout, "%s: %s: %s\n", r.ResourceKey.String(), r.Status, r.Message); err != nil {
			return err
		}
		if r.Status == common.ResultCodeSyncFailed || r.HookPhase == common.OperationFailed {
			failed = errors.Join(failed, fmt.Errorf("%s: %s", r.ResourceKey.String(), r.Message))
		}
	}
	return failed
}

// read returns the objects of a file, in the namespace and marked as the Application's.
func read(namespace, application, path string) ([]*unstructured.Unstructured, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	objects, err := kube.SplitYAML(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, o := range objects {
		o.SetNamespace(namespace)
		annotations := o.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[tracking] = trackingID(application, kube.GetResourceKey(o))
		o.SetAnnotations(annotations)
	}
	return objects, nil
}

func trackingID(application string, k kube.ResourceKey) string {
	return fmt.Sprintf("%s:%s/%s:%s/%s", application, k.Group, k.Kind, k.Namespace, k.Name)
}
