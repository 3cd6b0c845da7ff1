// Command picture takes a picture of a page, for the documentation: 1280 pixels wide, with 256
// colours, so that it stays small.
//
//	go run ./test/page/picture URL FILE
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/chromedp/chromedp"
)

const (
	width, height = 1280, 860
	timeout       = time.Minute
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("want a URL and the path of the picture")
	}
	shot, err := take(args[0])
	if err != nil {
		return fmt.Errorf("take a picture of %s: %w", args[0], err)
	}
	picture, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, reduce(picture)); err != nil {
		return err
	}
	return os.WriteFile(args[1], b.Bytes(), 0o644)
}

// take returns a picture of the page once its script has run.
func take(url string) ([]byte, error) {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.DisableGPU, chromedp.Flag("disable-lcd-text", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	ctx, stop = chromedp.NewContext(ctx)
	defer stop()
	if _, err := chromedp.Run(ctx, chromedp.EmulateViewport(width, height)); err != nil {
		return nil, err
	}
	ctx, stop = context.WithTimeout(ctx, timeout)
	defer stop()
	if err := chromedp.Do(ctx, chromedp.Navigate(url), chromedp.WaitReady(`html[data-ready="true"]`)); err != nil {
		return nil, err
	}
	return chromedp.Run(ctx, chromedp.CaptureScreenshot())
}

// reduce keeps the 256 most frequent colours; others become the nearest of them.
func reduce(from image.Image) image.Image {
	count := map[color.Color]int{}
	bounds := from.Bounds()
	each := func(visit func(x, y int, c color.Color)) {
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			for x := bounds.Min.X; x < bounds.Max.X; x++ {
				visit(x, y, color.RGBAModel.Convert(from.At(x, y)))
			}
		}
	}
	each(func(_, _ int, c color.Color) { count[c]++ })
	colours := slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	to := image.NewPaletted(bounds, color.Palette(colours[:min(len(colours), 256)]))
	index := map[color.Color]uint8{}
	each(func(x, y int, c color.Color) {
		if _, known := index[c]; !known {
			index[c] = uint8(to.Palette.Index(c))
		}
		to.SetColorIndex(x, y, index[c])
	})
	return to
}
