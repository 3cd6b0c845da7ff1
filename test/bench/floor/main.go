// Command floor is the least that anything costs which uses client-go's typed
// client: it lists the Events page by page, watches for -watch more, decodes
// them all, and does nothing with them. It reads protobuf, or JSON from a server
// that has nothing else.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func main() {
	server := flag.String("server", "http://127.0.0.1:8001", "`URL` of the API server")
	watch := flag.Int("watch", 0, "how many Events to wait for after the list")
	flag.Parse()
	if err := run(context.Background(), *server, *watch); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server string, watch int) error {
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server, QPS: -1})
	if err != nil {
		return err
	}
	events := client.CoreV1().Events(metav1.NamespaceAll)
	options := metav1.ListOptions{Limit: 500}
	for {
		page, err := events.List(ctx, options)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if options.Continue = page.Continue; options.Continue == "" {
			options = metav1.ListOptions{ResourceVersion: page.ResourceVersion}
			break
		}
	}
	if watch == 0 {
		return nil
	}
	w, err := events.Watch(ctx, options)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer w.Stop()
	for range watch {
		if _, ok := <-w.ResultChan(); !ok {
			return fmt.Errorf("the watch ended before %d Events had come", watch)
		}
	}
	return nil
}
