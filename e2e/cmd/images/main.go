// Command images builds both images as docs/images.md says and prints the
// names and archives:
//
//	go run ./cmd/images [-tag TAG]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/troupe-dev/troupe/e2e/image"
)

func main() {
	tag := flag.String("tag", "", "`tag` of both images (default e2e)")
	dir := flag.String("dir", "", "`directory` for the archives (default: images in the cluster's)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	images, err := image.Build(ctx, image.Config{Tag: *tag, Dir: *dir, Log: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
	for _, i := range []image.Image{images.Server, images.Runner} {
		fmt.Println(i.Ref, i.Archive)
	}
}
