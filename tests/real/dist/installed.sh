# installed.sh CRIU: installs /package.deb, and uses what it has brought as anybody would. Says what it sees.
set -eu
export SELFDUMP_DIR=/srv/checkpoints SELFDUMP_CRIU=$1
mkdir /srv/work
cd /srv/work
dpkg -i /package.deb > dpkg.out

echo "version: $(selfdump --version)"
cc -Wall -Wextra -Werror -o counter /usr/share/doc/selfdump/examples/counter.c $(pkg-config --cflags --libs selfdump)
echo "pkg-config: $(pkg-config --modversion selfdump)"
./counter > counter.out < /dev/null
echo "counter: $(tail -1 counter.out)"
selfdump restore counter < /dev/null 2> restore.err || cat restore.err
echo "restored: $(grep -c '^restored counter/' counter.out)"
echo "preloaded: $(selfdump run -- sh -c 'grep -q "/usr/lib/libselfdump.so.0$" /proc/self/maps && echo yes' 2> run.err)"
cat run.err
for shell in bash-completion/completions/selfdump zsh/site-functions/_selfdump fish/vendor_completions.d/selfdump.fish; do
    grep -q restore "/usr/share/$shell" && echo "completions: $shell"
done
bash -n /usr/share/bash-completion/completions/selfdump
for page in selfdump selfdump-list selfdump-restore selfdump-run selfdump-setup selfdump-status; do
    echo "manual: $(sed -n 's/^\.TH \([^ ]*\) 1 .*/\1/p' /usr/share/man/man1/$page.1)"
done

dpkg -r selfdump > dpkg.out
echo "left: $(ls -d /usr/bin/selfdump /usr/lib/libselfdump* /usr/include/selfdump.h /usr/share/doc/selfdump 2> /dev/null | wc -l)"
