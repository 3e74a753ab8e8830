# Mail::DKIM on many messages: one process, keys from a file instead of the DNS.
#
#   perl dkim_verifier.pl KEYS FOLDER
#
# KEYS has a line a key, name and TXT value with a tab between them. For every file in FOLDER one line comes out:
# its name and, for each signature in the order of the header, algorithm:result.

use strict;
use warnings;
use Mail::DKIM::Verifier;
use Net::DNS;

my ( $keys, $folder ) = @ARGV;
my %records;
open( my $list, '<', $keys ) or die "$keys: $!\n";
while ( my $line = <$list> ) {
    chomp $line;
    my ( $name, $value ) = split /\t/, $line, 2;
    my @strings = $value =~ /(.{1,255})/gs;    # a TXT record's strings are that long at most
    $records{ lc $name } = Net::DNS::RR->new( name => $name, type => 'TXT', txtdata => \@strings );
}

no warnings 'redefine';
*Mail::DKIM::DNS::query = sub {
    my ( $name, $type ) = @_;
    my $record = $records{ lc $name };
    $@ = $record ? 'NOERROR' : 'NXDOMAIN';
    return $record ? ($record) : ();
};

opendir( my $files, $folder ) or die "$folder: $!\n";
for my $name ( sort grep { !/^\./ } readdir $files ) {
    open( my $file, '<:raw', "$folder/$name" ) or die "$folder/$name: $!\n";
    my $content = do { local $/; <$file> };
    my $verifier = Mail::DKIM::Verifier->new();
    $verifier->PRINT($content);
    $verifier->CLOSE();
    print join( "\t", $name, map { ( $_->algorithm // '' ) . ':' . $_->result } $verifier->signatures ), "\n";
}
