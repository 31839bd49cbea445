"""Rehearsals: start what docker-compose.yml and deploy/ describe on this machine, kill its parts, count the effects."""
