# SPDX-License-Identifier: Apache-2.0
# perl: words of a text counted, substitutions, sorting, string building.
use strict;
use warnings;

my ($lines, %count, %pair, $before) = (0);
open(my $in, '<', '/bench/data/text') or die "text: $!\n";
while (my $line = <$in>) {
	last if ++$lines > 18000;
	$line =~ s/([a-z])\1/uc($1)/ge;
	for my $word (split /\W+/, $line) {
		$count{$word}++;
		$pair{"$before $word"}++ if defined $before && length($word) > 4;
		$before = $word;
	}
}
my @top = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print "words ", scalar(@top), "\n";
print "$_ $count{$_}\n" for @top[0 .. 9];
my @pairs = sort { $pair{$b} <=> $pair{$a} || $a cmp $b } keys %pair;
print "pairs ", scalar(@pairs), " $pairs[0] $pair{$pairs[0]}\n";
my $sum = 0;
for my $i (1 .. 400000) {
	$sum = ($sum * 31 + ord(substr("abcdefgh", $i % 8, 1))) % 1000003;
}
print "sum $sum\n";
