// Command flux applies manifests as Flux's kustomize-controller does, by Flux's own library: server-side apply in its field
// manager's name, of what a dry run says differs, after fields that kubectl owns were given up.
//
//	flux NAMESPACE FILE
//
// It prints one line for each object: what was done with it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
)

const (
	controller = "kustomize-controller"
	group      = "kustomize.toolkit.fluxcd.io"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: flux NAMESPACE FILE")
		os.Exit(2) //nolint:gocritic // the process ends
	}
	if err := apply(ctx, os.Args[1], os.Args[2], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func apply(ctx context.Context, namespace, path string, stdout io.Writer) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit
	c, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	objects, err := utils.ReadObjects(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, o := range objects {
		o.SetNamespace(namespace)
	}
	if err := normalize.UnstructuredList(objects); err != nil {
		return err
	}
	manager := ssa.NewResourceManager(c, nil, ssa.Owner{Field: controller, Group: group})
	manager.SetOwnerLabels(objects, "app", namespace)
	changes, err := manager.ApplyAllStaged(ctx, objects, options())
	if err != nil {
		return err
	}
	for _, e := range changes.Entries {
		if _, err := fmt.Fprintln(stdout, e.String()); err != nil {
			return err
		}
	}
	return nil
}

// options are those that the controller applies a Kustomization with that sets none.
func options() ssa.ApplyOptions {
	o := ssa.DefaultApplyOptions()
	o.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{corev1.LastAppliedConfigAnnotation},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: controller, OperationType: metav1.ManagedFieldsOperationUpdate},
		},
	}
	return o
}
