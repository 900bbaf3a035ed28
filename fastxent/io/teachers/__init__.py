"""Dumps of DistillKit: a sequence per row, whose tokens have compressed lists of the likeliest ids."""
