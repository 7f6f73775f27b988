# bash completion for golock, made by dist/generate.

# Offers what `compgen` finds for $cur, one word a line.
_golock_offer() {
    [[ $1 == -[fd] ]] && compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

_golock() {
    local cur=${COMP_WORDS[COMP_CWORD]} at=1 next option='' command=''
    COMPREPLY=()
    # Go to the word at the cursor, or to the command if that comes first. To bash, --port=6379 is three words.
    while ((at < COMP_CWORD)); do
        next=$((at + 1))
        case ${COMP_WORDS[at]} in
            --) ((++at)); command=yes; break ;;
            --host | --port | --user | --auth | --auth-file | --db | --url | --redis-timeout | --reconnect-attempts | --reconnect-backoff | --grace | --release | --timeout | --kill-after | --key | --key-format | --prefix | --tls-ca | --tls-cert | --tls-key | --tls-name | --lease | --wait | --skip-exit | --record | --max-age | --local-dir | --config) ((++next)) ;;
            -*) ;;
            *) command=yes; break ;;
        esac
        [[ ${COMP_WORDS[at + 1]} == '=' ]] && next=$((at + 3))
        ((next > COMP_CWORD)) && { option=${COMP_WORDS[at]}; break; }
        at=$next
    done
    if [[ $option ]]; then
        [[ $cur == '=' ]] && cur=
        case $option in
            --host) _golock_offer -A hostname ;;
            --auth-file) _golock_offer -f ;;
            --key-format) _golock_offer -W 'cronlock golock' ;;
            --tls-ca) _golock_offer -f ;;
            --tls-cert) _golock_offer -f ;;
            --tls-key) _golock_offer -f ;;
            --tls-name) _golock_offer -A hostname ;;
            --local-dir) _golock_offer -d ;;
            --config) _golock_offer -f ;;
            --host | --port | --user | --auth | --auth-file | --db | --url | --redis-timeout | --reconnect-attempts | --reconnect-backoff | --grace | --release | --timeout | --kill-after | --key | --key-format | --prefix | --tls-ca | --tls-cert | --tls-key | --tls-name | --lease | --wait | --skip-exit | --record | --max-age | --local-dir | --config) ;;
            *) _golock_offer -W 'yes no' ;;
        esac
    elif [[ ! $command && $cur == -* ]]; then
        _golock_offer -W '--host --port --user --auth --auth-file --db --url --redis-timeout --reconnect-attempts --reconnect-backoff --grace --release --timeout --kill-after --key --key-format --prefix --reset --verbose --show-key --tls --tls-skip-verify --tls-ca --tls-cert --tls-key --tls-name --lease --wait --skip-exit --record --max-age --local --local-dir --config --status --list --metrics --print-key --help --version'
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$at"
    elif ((at == COMP_CWORD)); then
        _golock_offer -c
    else
        _golock_offer -f
    fi
}

complete -F _golock golock
