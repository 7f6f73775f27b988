# fish completion for golock, made by dist/generate.

function __golock_before_command --description 'Whether the command has not been named yet'
    set -l is_value no
    for word in (commandline -opc)[2..-1]
        if test $is_value = yes
            set is_value no
            continue
        end
        switch $word
            case --host --port --user --auth --auth-file --db --url --redis-timeout --reconnect-attempts --reconnect-backoff --grace --release --timeout --kill-after --key --key-format --prefix --tls-ca --tls-cert --tls-key --tls-name --lease --wait --skip-exit --record --max-age --local-dir --config
                set is_value yes
            case --
                return 1
            case '-*'
            case '*'
                return 1
        end
    end
    return 0
end

complete -c golock -n __golock_before_command -l host -x -a '(__fish_print_hostnames)' -d 'name, address, or path of a socket'
complete -c golock -n __golock_before_command -l port -x -d 'port'
complete -c golock -n __golock_before_command -l user -x -d 'ACL user'
complete -c golock -n __golock_before_command -l auth -x -d 'password'
complete -c golock -n __golock_before_command -l auth-file -r -F -d 'file that holds the password'
complete -c golock -n __golock_before_command -l db -x -d 'database number'
complete -c golock -n __golock_before_command -l url -x -d 'redis[s]://[user[:password]@]host[:port][/db]'
complete -c golock -n __golock_before_command -l redis-timeout -x -d 'time that one exchange with Redis may take'
complete -c golock -n __golock_before_command -l reconnect-attempts -x -d 'reconnects after the first try'
complete -c golock -n __golock_before_command -l reconnect-backoff -x -d 'wait added before each further reconnect'
complete -c golock -n __golock_before_command -l grace -x -d 'minimum time that a lock persists'
complete -c golock -n __golock_before_command -l release -x -d 'maximum time that a lock persists'
complete -c golock -n __golock_before_command -l timeout -x -d 'time that the command may run; 0: no limit'
complete -c golock -n __golock_before_command -l kill-after -x -d 'SIGTERM at TIMEOUT, SIGKILL this much later'
complete -c golock -n __golock_before_command -l key -x -d 'name of the lock; default: hash of the command'
complete -c golock -n __golock_before_command -l key-format -x -a 'cronlock golock' -d 'whose hash: cronlock or golock (Go)'
complete -c golock -n __golock_before_command -l prefix -x -d 'put before KEY'
complete -c golock -n __golock_before_command -l reset -d 'delete the lock and exit 200'
complete -c golock -n __golock_before_command -l verbose -d 'say on stderr what happens'
complete -c golock -n __golock_before_command -l show-key -d 'print the lock\'s full name on stderr'
complete -c golock -n __golock_before_command -l tls -d 'TLS 1.2 or 1.3'
complete -c golock -n __golock_before_command -l tls-skip-verify -d 'accept any certificate'
complete -c golock -n __golock_before_command -l tls-ca -r -F -d 'PEM file of CAs to trust, not the built-in ones'
complete -c golock -n __golock_before_command -l tls-cert -r -F -d 'PEM client certificate chain, with TLS_KEY'
complete -c golock -n __golock_before_command -l tls-key -r -F -d 'PEM client key, with TLS_CERT'
complete -c golock -n __golock_before_command -l tls-name -x -a '(__fish_print_hostnames)' -d 'name in the server\'s certificate, if not HOST'
complete -c golock -n __golock_before_command -l lease -x -d 'hold the lock by a lease of this length'
complete -c golock -n __golock_before_command -l wait -x -d 'time to wait for a held lock'
complete -c golock -n __golock_before_command -l skip-exit -x -d 'exit code if the lock is held by another'
complete -c golock -n __golock_before_command -l record -x -d 'time to keep the record of a run; 0: none'
complete -c golock -n __golock_before_command -l max-age -x -d 'warn if nothing has succeeded for so long'
complete -c golock -n __golock_before_command -l local -d 'lock on this host alone, without Redis'
complete -c golock -n __golock_before_command -l local-dir -x -a '(__fish_complete_directories)' -d 'folder of the local locks'
complete -c golock -n __golock_before_command -l config -r -F -d 'config file; default: /etc/cronlock.conf'
complete -c golock -n __golock_before_command -l status -d 'print what is known of the lock, run nothing'
complete -c golock -n __golock_before_command -l list -d 'list all jobs, run nothing'
complete -c golock -n __golock_before_command -l metrics -d 'list all jobs for Prometheus, run nothing'
complete -c golock -n __golock_before_command -l print-key -d 'print the full name of the lock, run nothing'
complete -c golock -n __golock_before_command -l help -d 'print the common settings, or all'
complete -c golock -n __golock_before_command -l version -d 'print the version'
complete -c golock -n __golock_before_command -s v -d 'as --verbose'
complete -c golock -n __golock_before_command -s h -d 'print the common settings'
complete -c golock -n __golock_before_command -s V -d 'print the version'
complete -c golock -x -a '(__fish_complete_subcommand -- --host --port --user --auth --auth-file --db --url --redis-timeout --reconnect-attempts --reconnect-backoff --grace --release --timeout --kill-after --key --key-format --prefix --tls-ca --tls-cert --tls-key --tls-name --lease --wait --skip-exit --record --max-age --local-dir --config)'
