//go:build !linux

package app

func unmapBinary() error { return nil }
